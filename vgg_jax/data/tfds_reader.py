"""Decodes TFDS records into arrays, and caches whole splits on disk."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from vgg_jax import files
from vgg_jax.errors import ConfigError, RunError

_CHUNK = 500  # records read at once
_LONG = 5000  # records; the progress of decoding more is reported ...
_REPORTS = 10  # ... this many times


class Records(NamedTuple):
    """A split in the order of its files.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int32 `[N]`.
        ids: bytes `[N]`, canonical names; an empty array where the set has none.
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
    """Returns all records of a whole split, from the cache where it holds them.

    Args:
        builder: a prepared data set of images with class labels.
        split: name of a split, without slices.
        size: height and width in pixels to which images of varying size are scaled and
            centre-cropped; of no effect where all images share one size.
        report: receives a line now and then while a large split is decoded.

    Raises:
        ConfigError: the set is not for image classification, or `size` is missing.
        RunError: a file is missing, corrupt or truncated.
    """
    _check_features(builder, size)
    try:
        name = f"{_fingerprint(builder, split, size)}.npz"
    except OSError as error:
        raise RunError(
            f"{builder.data_path}: a file of split {split!r} is missing ({error}): "
            "remove this directory and prepare the set again"
        ) from error
    cached = files.cache_directory() / "decoded" / name
    try:
        # Opened here, as `np.load` leaves a damaged file open. Zip members carry a CRC.
        with open(cached, "rb") as file, np.load(file) as arrays:
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
    """Returns the names of the image and the label feature."""
    image, label = (builder.info.supervised_keys or ("image", "label"))[:2]
    return str(image), str(label)


def class_names(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of their labels."""
    return tuple(_features(builder)[feature_keys(builder)[1]].names)


def _features(builder: tfds.core.DatasetBuilder) -> Any:
    """Returns the features by name: a `FeaturesDict`, which TFDS does not declare."""
    return builder.info.features


def _check_features(builder: tfds.core.DatasetBuilder, size: int) -> tuple[str, str]:
    """Returns `feature_keys` of a set if it can be trained on."""
    name, features = builder.name, _features(builder)
    image, label = feature_keys(builder)
    kinds = {
        image: tfds.features.Image,
        label: tfds.features.ClassLabel,
    }
    for key, kind in kinds.items():
        feature = features[key] if key in features else None
        if not isinstance(feature, kind):
            raise ConfigError(
                f"data.name={name!r} is not an image-classification set: its feature "
                f"{key!r} is {feature}, not {kind.__name__}"
            )
    if features[image].np_dtype != np.uint8:
        raise ConfigError(f"data.name={name!r} has {features[image].np_dtype} images")
    if None in features[image].shape[:2] and not size:
        raise ConfigError(
            f"data.name={name!r} has images of varying size: set augment.resize to the "
            "size to train at"
        )
    return image, label


def _fingerprint(builder: tfds.core.DatasetBuilder, split: str, size: int) -> str:
    """Returns a name that changes with the files of a split and how it is decoded."""
    parts = [builder.info.full_name, split, str(size), "1"]
    for path in builder.info.splits[split].filepaths:
        stat = os.stat(path)
        parts += [os.fspath(path), str(stat.st_size), str(stat.st_mtime_ns)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return f"{builder.name}-{split}-{digest}"


class Reader:
    """Decodes records of a whole split by number.

    Args:
        builder: a prepared data set of images with class labels.
        split: name of a split, without slices.
        size: height and width in pixels to which images of varying size are scaled and
            centre-cropped; of no effect where all images share one size.

    Attributes:
        shape: `(H, W, C)` of every image.

    Raises:
        ConfigError: the set is not for image classification, or `size` is missing.
    """

    shape: tuple[int, int, int]

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str, size: int = 0
    ) -> None:
        self._image, self._label = _check_features(builder, size)
        # TFDS' logging decorator hides the signature of `as_data_source`.
        self._source: Any = builder.as_data_source(
            split,  # pyright: ignore[reportCallIssue]
            decoders={self._image: tfds.decode.SkipDecoding()},
        )
        shape = _features(builder)[self._image].shape
        self._size = size if None in shape[:2] else 0
        self.shape = (size, size, shape[2]) if self._size else shape

    def __len__(self) -> int:
        return len(self._source)

    def read(self, numbers: Iterable[int] | np.ndarray) -> Records:
        """Decodes the records of these numbers, in the order given."""
        encoded = self._source.__getitems__([int(n) for n in numbers])
        images = np.empty((len(encoded), *self.shape), np.uint8)
        for image, record in zip(images, encoded, strict=True):
            image[:] = self._picture(record[self._image])
        labels = np.array([record[self._label] for record in encoded], np.int32)
        return Records(images, labels, _ids(encoded))

    def ids(self) -> np.ndarray:
        """Returns `Records.ids` of all records without decoding an image."""
        return np.concatenate(
            [_ids(self._source.__getitems__(list(chunk))) for chunk in self.chunks()]
        )

    def chunks(self) -> list[range]:
        """Returns the numbers of all records, in pieces of a size to read at once."""
        count = len(self)
        return [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]

    def _picture(self, data: bytes) -> np.ndarray:
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[self.shape[-1]]
        with PIL.Image.open(io.BytesIO(data)) as picture:
            picture = picture.convert(mode)
            picture = _fit(picture, self._size) if self._size else picture
            return np.asarray(picture).reshape(self.shape)


def _ids(records: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([record["id"] for record in records if "id" in record], "S")


def _decode(
    builder: tfds.core.DatasetBuilder,
    split: str,
    size: int,
    report: Callable[[str], None],
) -> Records:
    reader = Reader(builder, split, size)
    count, parts = len(reader), []
    for chunk in reader.chunks():
        parts.append(reader.read(chunk))
        reports_due = chunk.stop * _REPORTS // count
        if count > _LONG and reports_due > chunk.start * _REPORTS // count:
            report(f"reading {builder.name} {split}: {chunk.stop:,} of {count:,}")
    return Records(*map(np.concatenate, zip(*parts, strict=True)))


def _fit(picture: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """Scales the smaller side to `size` pixels, then cuts out the centre square."""
    scale = size / min(picture.size)
    wide, high = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((wide, high), PIL.Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _store(path: Path, records: Records) -> None:
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
