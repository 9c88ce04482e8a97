"""Splits whose images are all in memory, and whether they fit."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vgg_jax import memory
from vgg_jax.data import cifar10_sums, tfds_features, tfds_reader
from vgg_jax.data.splits import Spans
from vgg_jax.errors import ConfigError, RunError


class Split(NamedTuple):
    """A split in memory.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int32 `[N]`.

    >>> split = Split(np.zeros((3, 8, 8, 1), np.uint8), np.arange(3, dtype=np.int32))
    >>> len(split), split.image_shape, split.take(np.array([2, 0]))[1].tolist()
    (3, (8, 8, 1), [2, 0])
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images, uint8 `[B, H, W, C]`, and labels, int32 `[B]`, by number."""
        return self.images[index], self.labels[index]

    def picture(self, number: int) -> tuple[np.ndarray, int]:
        """Returns an image, uint8 `[H, W, C]`, and its label."""
        return self.images[number], int(self.labels[number])

    def name(self, number: int) -> str:
        """Returns what an image is called: its number."""
        return str(number)

    def batches(
        self, indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields `take(index)` for each index."""
        return map(self.take, indices)


def whole(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    size: int,
    report: Callable[[str], None],
) -> tfds_reader.Records:
    """Reads a whole split and checks its SHA-256 where that is known."""
    records = tfds_reader.read(builder, split, size=size, report=report)
    stored_shape = records.images.shape[1:] == (32, 32, 3)  # not made smaller
    if builder.name in cifar10_sums.SHA256 and stored_shape:
        order = np.argsort(records.ids)
        images, labels = records.images, records.labels
        try:
            cifar10_sums.verify(split, images, labels, order=order, name=builder.name)
        except RunError as error:
            raise RunError(
                f"{builder.data_path}: {error}; remove this directory and prepare the "
                "set again"
            ) from error
    return records


def check_fits(
    builder: tfds.core.DatasetBuilder, count: int, size: int, whole: bool
) -> None:
    """Checks, before any is decoded, that so many images fit in memory.

    Args:
        builder: a prepared data set of images.
        count: number of images, copies included.
        size: as for `tfds_reader.read`.
        whole: whether these are whole splits, which could be streamed.

    Raises:
        ConfigError: they do not fit.
    """
    height, width, channels = tfds_features.shape_of(builder, size)
    needed, free = count * height * width * channels, memory.available()
    if free is not None and needed > free:
        raise ConfigError(
            f"data.name={builder.name!r}: {count:,} images of {width}x{height} pixels "
            f"(copies included) take {needed / 1e9:,.1f} GB of memory, and "
            f"{free / 1e9:,.1f} GB are available: set augment.resize to fewer pixels"
            + (
                ", or data.stream=True to decode them as they are needed"
                if whole
                else ""
            )
        )


def gather(spans: Spans, fetch: Callable[[str], tfds_reader.Records]) -> Split:
    """Copies the records of `spans` out of the whole splits."""
    records = [fetch(split) for split in spans]
    columns = []
    for key in Split._fields:
        wholes = [getattr(part, key) for part in records]
        pieces = [a[span] for a, span in zip(wholes, spans.values(), strict=True)]
        # Joined only where there are several: images are most of a run's memory.
        columns.append(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
    return Split(*columns)
