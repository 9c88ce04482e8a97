"""Splits that are decoded from disk as they are needed, for sets larger than memory."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np

from vgg_jax.data.tfds_reader import Reader

_THREADS = 8  # each decodes one batch at a time
_AHEAD = 8  # batches held ready
AT_ONCE = _THREADS + _AHEAD  # batches in memory


class Streamed(NamedTuple):
    """A split on disk. It gives the same batches as `in_memory.Split`, bit for bit.

    Attributes:
        readers: one per whole split that examples come from.
        part: int64 `[N]`, which of the readers each example belongs to.
        number: int64 `[N]`, number of each example's record in its reader.
    """

    readers: tuple[Reader, ...]
    part: np.ndarray
    number: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of every image."""
        return self.readers[0].shape

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decodes some examples.

        Args:
            index: int `[B]`, numbers of the examples in this split.

        Returns:
            Images, uint8 `[B, H, W, C]`, and labels, int32 `[B]`.
        """
        images = np.empty((len(index), *self.image_shape), np.uint8)
        labels = np.empty(len(index), np.int32)
        for which, reader in enumerate(self.readers):
            (places,) = np.nonzero(self.part[index] == which)
            if len(places):
                records = reader.read(self.number[index[places]])
                images[places], labels[places] = records.images, records.labels
        return images, labels

    def batches(
        self, indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields `take(index)` for each index, in order, decoded ahead by threads."""
        pipeline = grain.MapDataset.source(indices).map(self.take)
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
        return iter(pipeline.to_iter_dataset(options))
