"""Prepares."""

import tempfile
from pathlib import Path

import numpy as np
import PIL.Image

from vgg_jax.data import datasets, image_folder


def write_set(name, data_dir, classes, splits):
    """Writes a data set from folders of PNG pictures, as `vgg folder` does.

    Args:
        name: of the data set.
        data_dir: TFDS directory.
        classes: names of all classes that labels count.
        splits: split -> images and labels.
    """
    if (data_dir / name).exists():
        return
    with tempfile.TemporaryDirectory() as directory:
        for split, (images, labels) in splits.items():
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                folder = Path(directory, split, classes[label])
                folder.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(image).save(folder / f"{i:05}.png")
        image_folder.prepare(Path(directory), name, data_dir)


def pick(split, labels):
    chosen = np.isin(split.labels, labels)
    return split.images[chosen], split.labels[chosen]


if __name__ == "__main__":
    whole = datasets.load("cifar10", validation="none")
    write_set(
        "cifar10_first",
        Path("/tmp/transfer/data"),
        whole.classes,
        {split: pick(getattr(whole, split), range(5)) for split in ("train", "test")},
    )
