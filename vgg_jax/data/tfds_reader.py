"""Decodes TFDS records into arrays, and caches whole splits on disk."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vgg_jax.data import decoded_cache, pictures, tfds_features
from vgg_jax.data.framing import Centre, Frame
from vgg_jax.errors import RunError, UserError

_CHUNK = 500  # records read at once
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of Pillow, by the number of channels
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


class Encoded(NamedTuple):
    """A picture that is not decoded yet.

    Attributes:
        data: for the `decode` of the reader that it is from.
        label: of its class.
        name: by which a person finds it.
    """

    data: Any
    label: int
    name: str


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
        size: as for `Reader`.
        report: receives a line now and then while a large split is decoded.

    Raises:
        ConfigError: the set is not for image classification, or `size` is missing.
        RunError: a file is missing, corrupt or truncated, or memory is short.
    """
    shape = tfds_features.shape_of(builder, size)
    try:
        name = _fingerprint(builder, split, str(shape))
    except OSError as error:
        raise RunError(
            f"{builder.data_path}: a file of split {split!r} is missing ({error}): "
            "remove this directory and prepare the set again"
        ) from error
    try:
        if cached := decoded_cache.load(name):
            return Records(**cached)
        records = _decode(builder, split, size, report)
    except MemoryError as error:
        raise RunError(
            f"{builder.data_path}: there is not enough memory to decode split "
            f"{split!r}: set augment.resize to a smaller size, or data.stream=True"
        ) from error
    except UserError:
        raise
    except Exception as error:
        raise RunError(
            f"{builder.data_path}: split {split!r} cannot be read ({error}); a file is "
            "corrupt or truncated: remove this directory and prepare the set again"
        ) from error
    decoded_cache.store(name, records._asdict())
    return records


def ids(builder: tfds.core.DatasetBuilder, split: str) -> np.ndarray:
    """Returns `Records.ids` of a whole split without decoding an image.

    To know them takes reading all records; hence they are cached.
    """
    if "id" not in tfds_features.features(builder):
        return np.array([], "S")
    name = _fingerprint(builder, split, "ids")
    if cached := decoded_cache.load(name):
        return cached["ids"]
    reader = Reader(builder, split, size=1)  # any: no image is decoded
    found = np.concatenate([reader.ids(chunk) for chunk in reader.chunks()])
    decoded_cache.store(name, {"ids": found})
    return found


def _fingerprint(builder: tfds.core.DatasetBuilder, split: str, what: str) -> str:
    """Returns a name that changes with the files of a split and what is kept of it."""
    parts = [builder.info.full_name, split, what, "2"]
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
        size: height and width in pixels that the network sees; see
            `tfds_features.shape_of`.
        scale: pixels of the smaller side of a picture, of which `size` are cut out; 0:
            `size`, and images that are smaller stay as they are.

    Attributes:
        shape: `(H, W, C)` of every image.
        framing: what is cut out of every picture; None: they are whole.
        source: a name that changes with the files.
        name: what a picture is called by, before its number.

    Raises:
        ConfigError: the set is not for image classification, or `size` is missing.
    """

    shape: tuple[int, int, int]
    framing: Centre | None

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        size: int = 0,
        scale: int = 0,
    ) -> None:
        self._image, self._label = tfds_features.check(builder, size)
        # TFDS' logging decorator hides the signature of `as_data_source`.
        self._source: Any = builder.as_data_source(
            split,  # pyright: ignore[reportCallIssue]
            decoders={self._image: tfds.decode.SkipDecoding()},
        )
        stored = tfds_features.features(builder)[self._image].shape
        channels = stored[-1]
        whole = tfds_features.shape_of(builder, size)
        self.shape = (size, size, channels) if scale else whole
        is_whole = self.shape == stored and scale in (0, size)
        self.framing = None if is_whole else Centre(size, scale)
        self.source = _fingerprint(builder, split, "")
        self.name = f"{builder.name} {split}"
        pictures.accept_large()

    def __len__(self) -> int:
        return len(self._source)

    def read(self, numbers: Iterable[int] | np.ndarray) -> Records:
        """Decodes the records of these numbers, in the order given."""
        encoded = self._source.__getitems__([int(n) for n in numbers])
        images = np.empty((len(encoded), *self.shape), np.uint8)
        frame = self.framing and self.framing.at(0)
        for image, record in zip(images, encoded, strict=True):
            image[:] = self.decode(record[self._image], frame)
        labels = np.array([record[self._label] for record in encoded], np.int32)
        return Records(images, labels, _ids(encoded))

    def encoded(self, numbers: Iterable[int] | np.ndarray) -> list[Encoded]:
        """Returns the records of these numbers, undecoded."""
        numbers = [int(n) for n in numbers]
        return [
            Encoded(record[self._image], record[self._label], f"{self.name} {n}")
            for n, record in zip(
                numbers, self._source.__getitems__(numbers), strict=True
            )
        ]

    def ids(self, numbers: Iterable[int]) -> np.ndarray:
        """Returns `Records.ids` of these records without decoding an image."""
        return _ids(self._source.__getitems__(list(numbers)))

    def chunks(self) -> list[range]:
        """Returns the numbers of all records, in pieces of a size to read at once."""
        count = len(self)
        return [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]

    def decode(self, data: bytes, frame: Frame | None) -> np.ndarray:
        """Returns the pixels of a record, uint8 `[H, W, C]`.

        Args:
            data: as in `Encoded`.
            frame: what is cut out of it; None: nothing.

        Raises:
            ValueError: it is no picture; the message is why.
        """
        channels = self.shape[-1]
        with pictures.opened(io.BytesIO(data)) as picture:
            picture = pictures.eight_bits(picture).convert(_MODES[channels])
            picture = frame.cut(picture) if frame else picture
            return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _ids(records: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([record["id"] for record in records if "id" in record], "S")


def _decode(
    builder: tfds.core.DatasetBuilder,
    split: str,
    size: int,
    report: Callable[[str], None],
) -> Records:
    reader = Reader(builder, split, size)
    count = len(reader)
    images, parts = np.empty((count, *reader.shape), np.uint8), []
    for chunk in reader.chunks():
        records = reader.read(chunk)
        images[chunk.start : chunk.stop] = records.images
        parts.append((records.labels, records.ids))
        reports_due = chunk.stop * _REPORTS // count
        if count > _LONG and reports_due > chunk.start * _REPORTS // count:
            report(f"reading {builder.name} {split}: {chunk.stop:,} of {count:,}")
    return Records(images, *map(np.concatenate, zip(*parts, strict=True)))
