"""Makes a data set of your own: folders of pictures, without TensorFlow.

    python -m vgg_jax folder --images=photos --name=photos

Pictures lie in `photos/<class>/`, or in `photos/<split>/<class>/` where one split is
called train (say train and test). They may vary in size; `augment.resize` sets what the
network sees. They are shuffled, so that slices like `train[:80%]` hold every class.
Files that are not readable pictures are all named; `--skip_bad` leaves them out.
Then train on it:

    python -m vgg_jax train --config=configs/vgg16_bn.py --config.data.name=photos \\
        --config.augment.resize=64 --config.batch_size=128 --config.lr=0.12 \\
        --config.data.train='train[:80%]' \\
        --config.data.validation='train[80%:90%]' --config.data.test='train[90%:]'
"""

import argparse
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from vgg_jax.data import image_folder, stored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--images", type=Path, required=True, help="directory of the pictures"
    )
    parser.add_argument("--name", required=True, help="name of the data set")
    parser.add_argument(
        "--data_dir",
        default="",
        help="TFDS directory to write it to; default: TFDS_DATA_DIR, else TFDS' own",
    )
    parser.add_argument(
        "--skip_bad",
        action="store_true",
        help="leave out files that are not readable pictures",
    )


def run(options: argparse.Namespace) -> None:
    """Writes the data set; says what it found and how to train on it.

    Raises:
        ConfigError, RunError: see `image_folder.prepare`.
    """
    target = image_folder.prepare(
        options.images,
        options.name,
        stored.directory(options.data_dir),
        skip_bad=options.skip_bad,
    )
    info: Any = tfds.builder_from_directory(target).info
    height, width, _ = info.features["image"].shape
    sizes = f"{width}x{height}" if height else "various sizes: set augment.resize"
    for split, split_info in info.splits.items():
        print(f"{split}: {split_info.num_examples:,} pictures, {sizes}")
    print(f"classes: {', '.join(info.features['label'].names)}")
    flags = f"--config.data.name={options.name}"
    if options.data_dir:
        flags += f" --config.data.data_dir={options.data_dir}"
    print(f"{target}; train on it with {flags}")
