"""TFDS records -> arrays in memory, decoded once and cached."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from vgg_jax import files as cache
from vgg_jax.errors import ConfigError, RunError

_CHUNK = 500  # records read at once
_PLAIN_EVERY = 10  # progress steps of a long decoding


class Records(NamedTuple):
    """A split in the order of its files.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int32 `[N]`.
        ids: bytes `[N]`, canonical names; empty where the data set has none.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


def read(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    size: int = 0,
    report: Callable[[str], None] = print,
) -> Records:
    """All records of a whole split, from the cache where it holds them.

    Args:
        builder: a prepared data set of images with class labels.
        split: name of a split, without slices.
        size: images of varying size are scaled and centre-cropped to this.
        report: is told of a decoding that takes long.

    Raises:
        ConfigError: not an image-classification set, or `size` is missing.
        RunError: a file is corrupt or truncated.
    """
    _check_features(builder, size)
    try:
        name = f"{_fingerprint(builder, split, size)}.npz"
    except OSError as error:
        raise RunError(
            f"{builder.data_path}: a file of split {split!r} is missing ({error}): "
            "remove this directory and prepare the set again"
        ) from error
    cached = cache.directory() / "decoded" / name
    try:
        with np.load(cached) as arrays:  # zip members carry a CRC
            return Records(arrays["images"], arrays["labels"], arrays["ids"])
    except Exception:  # absent, or damaged in any way: decode again
        pass
    try:
        records = _decode(builder, split, size, report)
    except Exception as error:
        raise RunError(
            f"{builder.data_path}: split {split!r} cannot be read ({error}); a file is "
            "corrupt or truncated: remove this directory and prepare the set again"
        ) from error
    _store(cached, records)
    return records


def feature_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Names of the image and the label feature."""
    return builder.info.supervised_keys or ("image", "label")


def _check_features(builder, size) -> tuple[str, str]:
    """`feature_keys` of a set that can be trained on."""
    name, features = builder.name, builder.info.features
    image, label = feature_keys(builder)
    kinds = {
        image: tfds.features.Image,
        label: tfds.features.ClassLabel,
    }
    for key, kind in kinds.items():
        found = features[key] if key in features else None
        if not isinstance(found, kind):
            raise ConfigError(
                f"data.name={name!r} is not an image-classification set: its feature "
                f"{key!r} is {found}, not {kind.__name__}"
            )
    if features[image].np_dtype != np.uint8:
        raise ConfigError(f"data.name={name!r} has {features[image].np_dtype} images")
    if None in features[image].shape[:2] and not size:
        raise ConfigError(
            f"data.name={name!r} has images of varying size: set augment.resize to the "
            "size to train at"
        )
    return image, label


def _fingerprint(builder, split, size):
    """Changes with the files of the split and with how they are decoded."""
    parts = [builder.info.full_name, split, str(size), "1"]
    for path in builder.info.splits[split].filepaths:
        stat = os.stat(path)
        parts += [os.fspath(path), str(stat.st_size), str(stat.st_mtime_ns)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return f"{builder.name}-{split}-{digest}"


class Reader:
    """Decodes records of a whole split by number.

    Attributes:
        shape: `(H, W, C)` of every image.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, size: int = 0):
        self._image, self._label = _check_features(builder, size)
        self._source = builder.as_data_source(
            split, decoders={self._image: tfds.decode.SkipDecoding()}
        )
        shape = builder.info.features[self._image].shape
        self._size = size if None in shape[:2] else 0
        self.shape = (size, size, shape[2]) if self._size else shape

    def __len__(self) -> int:
        return len(self._source)

    def read(self, numbers) -> Records:
        """The records of these numbers, in their order."""
        found = self._source.__getitems__([int(n) for n in numbers])
        images = np.empty((len(found), *self.shape), np.uint8)
        for image, record in zip(images, found, strict=True):
            image[:] = self._picture(record[self._image])
        labels = np.array([record[self._label] for record in found], np.int32)
        return Records(images, labels, _ids(found))

    def ids(self) -> np.ndarray:
        """`Records.ids` of all records, no image decoded."""
        return np.concatenate(
            [_ids(self._source.__getitems__(list(chunk))) for chunk in self.chunks()]
        )

    def chunks(self) -> list[range]:
        """All numbers, in pieces of a size to read at once."""
        count = len(self)
        return [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]

    def _picture(self, data):
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[self.shape[-1]]
        with PIL.Image.open(io.BytesIO(data)) as picture:
            picture = picture.convert(mode)
            picture = _fit(picture, self._size) if self._size else picture
            return np.asarray(picture).reshape(self.shape)


def _ids(records):
    return np.array([record["id"] for record in records if "id" in record], "S")


def _decode(builder, split, size, report):
    reader = Reader(builder, split, size)
    count, parts = len(reader), []
    for chunk in reader.chunks():
        parts.append(reader.read(chunk))
        done = chunk.stop * _PLAIN_EVERY // count
        if count > 5000 and done > chunk.start * _PLAIN_EVERY // count:
            report(f"reading {builder.name} {split}: {chunk.stop:,} of {count:,}")
    return Records(*map(np.concatenate, zip(*parts, strict=True)))


def _fit(picture, size):
    """Smaller side to `size`, then the centre square."""
    scale = size / min(picture.size)
    wide, high = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((wide, high), PIL.Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _store(path, records):
    """Keeps the arrays for the next start; a full or read-only disk is no error."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            np.savez(file, **records._asdict())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
