"""Splits that are decoded from disk as they are needed, for sets larger than memory."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np

from vgg_jax.data import tfds_reader as decode

_THREADS, _AHEAD = 8, 8  # decoding batches; batches held ready


class Streamed(NamedTuple):
    """A split on disk. Same batches as `data.Split`, bit for bit.

    Attributes:
        readers: of the whole splits that the examples come from.
        part: int32 `[N]`, which reader an example is of.
        number: int64 `[N]`, its record there.
    """

    readers: tuple[decode.Reader, ...]
    part: np.ndarray
    number: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.readers[0].shape

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `[B, H, W, C]` and labels int32 `[B]` of these examples."""
        images = np.empty((len(index), *self.image_shape), np.uint8)
        labels = np.empty(len(index), np.int32)
        for which, reader in enumerate(self.readers):
            (own,) = np.nonzero(self.part[index] == which)
            if len(own):
                records = reader.read(self.number[index[own]])
                images[own], labels[own] = records.images, records.labels
        return images, labels

    def batches(
        self, indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`take` of each, decoded ahead by Grain's threads, in order."""
        pipeline = grain.MapDataset.source(indices).map(self.take)
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
        return iter(pipeline.to_iter_dataset(options))
