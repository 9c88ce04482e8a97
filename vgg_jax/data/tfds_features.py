"""The features of a TFDS data set: which of them is the image, which the label."""

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vgg_jax.errors import ConfigError

# Control characters, lone surrogates, line and paragraph separators.
_UNSHOWN = {"Cc", "Cs", "Zl", "Zp"}


def features(builder: tfds.core.DatasetBuilder) -> Any:
    """Returns the features by name: a `FeaturesDict`, which TFDS does not declare."""
    return builder.info.features


def keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Returns the names of the image and the label feature."""
    image, label = (builder.info.supervised_keys or ("image", "label"))[:2]
    return str(image), str(label)


def class_names(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of their labels.

    Raises:
        ConfigError: a name has a line break or cannot be shown.
    """
    key = keys(builder)[1]
    label = features(builder)[key]
    if len(label.names) != label.num_classes:  # TFDS reads one name per line
        file = builder.data_path / f"{key}.labels.txt"
        raise ConfigError(
            f"{file} has {len(label.names)} names of {label.num_classes} classes: a "
            "name with a line break? Rename that class"
        )
    return check_names(label.names)


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of classes if each of them can be shown on one line.

    Raises:
        ConfigError: one holds a line break, another control character, or bytes that
            are not UTF-8, or begins or ends with a space.
    """
    names = tuple(names)
    for name in names:
        shown = _UNSHOWN.isdisjoint(map(unicodedata.category, name))
        if not shown or name != name.strip():  # TFDS keeps them as lines of a file
            raise ConfigError(
                f"class {name!r} has a line break, a space at an end, or another "
                "character that no page can show in its name: rename it"
            )
    return names


def shape_of(builder: tfds.core.DatasetBuilder, size: int) -> tuple[int, int, int]:
    """Returns `(H, W, C)` of every decoded image.

    Args:
        builder: a prepared data set of images with class labels.
        size: height and width in pixels that the network sees; 0: as in the data set.
            Images of varying size are scaled and centre-cropped to it
            (`pictures.fit`), and so are images that are larger or not square. Smaller
            square ones stay as they are, for the device to enlarge.

    Raises:
        ConfigError: the set is not for image classification, or `size` is missing.
    """
    image, _ = check(builder, size)
    height, width, channels = features(builder)[image].shape
    if not size or (height is not None and height == width and height <= size):
        return height, width, channels
    return size, size, channels


def check(builder: tfds.core.DatasetBuilder, size: int) -> tuple[str, str]:
    """Returns `keys` of a set if it can be trained on."""
    name, found = builder.name, features(builder)
    image, label = keys(builder)
    kinds = {
        image: tfds.features.Image,
        label: tfds.features.ClassLabel,
    }
    for key, kind in kinds.items():
        feature = found[key] if key in found else None
        if not isinstance(feature, kind):
            raise ConfigError(
                f"data.name={name!r} is not an image-classification set: its feature "
                f"{key!r} is {feature}, not {kind.__name__}"
            )
    if found[image].np_dtype != np.uint8:
        raise ConfigError(f"data.name={name!r} has {found[image].np_dtype} images")
    if None in found[image].shape[:2] and not size:
        raise ConfigError(
            f"data.name={name!r} has images of varying size: set augment.resize to the "
            "size to train at"
        )
    return image, label
