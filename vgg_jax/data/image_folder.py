"""A data set of your own: folders of pictures -> a TFDS data set, without TensorFlow.

    python -m vgg_jax.data.image_folder --images=photos --name=photos
    python main.py --config=configs/vgg16_bn.py --config.data.name=photos \\
        --config.augment.resize=64 --config.batch_size=128 --config.lr=0.12 \\
        --config.data.train='train[:80%]' \\
        --config.data.validation='train[80%:90%]' --config.data.test='train[90%:]'

Pictures lie in `photos/<class>/`, or in `photos/<split>/<class>/` where one split is
called train (say train and test). They may vary in size; `augment.resize` sets what the
network sees. TFDS shuffles them, so that slices like `train[:80%]` hold every class.
"""

import argparse
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import PIL.Image
import PIL.ImageOps
import tensorflow_datasets as tfds

from vgg_jax.data.cifar10 import SHA256, write
from vgg_jax.errors import ConfigError, RunError, guarded

_VERSION = "1.0.0"
_KEPT = ("JPEG", "PNG")  # stored as they are; others become PNG
_ORIENTATION = 0x0112  # EXIF tag

Splits = Mapping[str, Mapping[str, Sequence[Path]]]  # split -> class -> files


class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the files as a data set with features id, image (RGB) and label."""

    VERSION = tfds.core.Version(_VERSION)

    def __init__(self, splits: Splits, size: tuple[int, int] | None, **kwargs):
        """Takes the files, `(height, width)` if all share it, and TFDS' arguments."""
        self._splits, self._size = splits, size or (None, None)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        classes = list(self._splits["train"])
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(*self._size, 3)),
            "label": tfds.features.ClassLabel(names=classes),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Folders of pictures, by vgg_jax.data.image_folder.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split):
        for label, files in self._splits[split].items():
            for file in files:
                name = f"{split}/{label}/{file.name}"
                yield name, {"id": name, "image": _encoded(file), "label": label}


def find(images: Path) -> Splits:
    """The files below a directory, by split and class, hidden ones left out.

    Raises:
        ConfigError: no such directory, fewer than two classes, an empty class, or
            splits whose classes differ.
    """
    if not images.is_dir():
        raise ConfigError(f"--images={images} is not a directory")
    names = [path.name for path in _below(images)]
    roots = {n: images / n for n in names} if "train" in names else {"train": images}
    splits = {
        split: {path.name: _below(path, files=True) for path in _below(root)}
        for split, root in roots.items()
    }
    if (count := len(splits["train"])) < 2:
        raise ConfigError(
            f"--images={images} has {count} class folders, two or more are "
            "needed: <images>/<class>/ or <images>/<split>/<class>/, one split 'train'"
        )
    _check(splits, roots)
    return splits


def _check(splits, roots):
    classes = splits["train"]
    for split, found in splits.items():
        if unknown := set(found) - set(classes):
            raise ConfigError(
                f"{roots[split]} has classes that train has not: "
                f"{', '.join(sorted(unknown))}"
            )
        for label, files in found.items():
            inner = _below(roots[split] / label)
            if inner or not files:
                raise ConfigError(
                    f"{roots[split] / label} holds "
                    f"{f'a directory, {inner[0].name}' if inner else 'no file'}: lay "
                    "pictures out as <images>/<class>/ or <images>/<split>/<class>/, "
                    "one split 'train'"
                )


def _below(directory, files=False):
    paths = [p for p in sorted(directory.iterdir()) if not p.name.startswith(".")]
    return [p for p in paths if p.is_file() == files]


def _encoded(file):
    """The file's own bytes where TFDS can keep them, upright; else a PNG."""
    with PIL.Image.open(file) as picture:
        turned = picture.getexif().get(_ORIENTATION, 1) != 1
        if picture.format in _KEPT and picture.mode in ("L", "RGB") and not turned:
            return io.BytesIO(file.read_bytes())
        png = io.BytesIO()
        PIL.ImageOps.exif_transpose(picture).convert("RGB").save(png, "png")
    png.seek(0)
    return png


def _common_size(splits):
    """`(height, width)` of all pictures, None if they vary. Decodes every one.

    Raises:
        RunError: a file is not a picture, or is damaged.
    """
    sizes = set()
    for found in splits.values():
        for file in (f for files in found.values() for f in files):
            try:
                with PIL.Image.open(_encoded(file)) as picture:
                    picture.load()
                    sizes.add(picture.size)
            except Exception as error:
                raise RunError(
                    f"{file} is not a readable picture ({error}): mend or remove it"
                ) from error
    return sizes.pop()[::-1] if len(sizes) == 1 else None


def prepare(images: Path, name: str, data_dir: Path) -> Path:
    """Writes the data set `name` into `data_dir`; returns its path.

    It appears by one rename, when it is whole; one that is there is left alone.

    Raises:
        ConfigError: `images` is not as `find` says, or `name` is taken or unfit.
        RunError: a picture is damaged, or `data_dir` cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"--name={name!r}: lower-case letters, digits and _, a letter first"
        )
    target = data_dir / name / _VERSION
    if target.parent.exists() or name in SHA256:
        raise ConfigError(
            f"--name={name} is taken in {data_dir}: give another --name or --data_dir"
        )
    splits = find(images)
    size = _common_size(splits)
    builder = type(name, (Pictures,), {"name": name}, skip_registration=True)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=data_dir) as part:
            write(builder(splits, size, data_dir=part), target)
    except (OSError, RuntimeError) as error:  # array_record's when the disk is full
        raise RunError(
            f"--data_dir={data_dir} cannot be written ({error}): give another"
        ) from error
    return target


def main(arguments: Sequence[str]) -> None:
    """The command line; says what it found and how to train on it."""
    parser = argparse.ArgumentParser(
        "python -m vgg_jax.data.image_folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="directory")
    parser.add_argument("--name", required=True, help="of the data set")
    default = os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    default = Path(default).expanduser()
    parser.add_argument("--data_dir", type=Path, default=default)
    options = parser.parse_args(arguments)
    target = prepare(options.images, options.name, options.data_dir)
    info = tfds.builder_from_directory(target).info
    height, width, _ = info.features["image"].shape
    sizes = f"{width}x{height}" if height else "various sizes: set augment.resize"
    for split, found in info.splits.items():
        print(f"{split}: {found.num_examples:,} pictures, {sizes}")
    print(f"classes: {', '.join(info.features['label'].names)}")
    flags = f"--config.data.name={options.name}"
    if options.data_dir != default:
        flags += f" --config.data.data_dir={options.data_dir}"
    print(f"{target}; train on it with {flags}")


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
