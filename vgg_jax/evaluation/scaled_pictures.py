"""Pictures at every scale, read by threads ahead of the network."""

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import PIL.Image

from vgg_jax.data import pictures
from vgg_jax.data.in_memory import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.evaluation.grouping import cut_to_ratio

_AHEAD = 16  # pictures
_THREADS = min(4, os.cpu_count() or 1)


class Pictures(Protocol):
    """Whole pictures with their labels, of any size, read as they are asked for."""

    def __len__(self) -> int:
        """Returns the number of pictures."""
        ...

    def __getitem__(self, number: int, /) -> tuple[np.ndarray, int]:
        """Returns pixels, uint8 `[h, w, C]`, and the label.

        Raises:
            ValueError: the picture is damaged; the message is why.
        """
        ...


class OfSplit:
    """The pictures of a split, whole: in memory, or on disk.

    Args:
        split: as `data.datasets` has them.
    """

    def __init__(self, split: Split | Streamed) -> None:
        self._split = split

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self._split)

    def __getitem__(self, number: int, /) -> tuple[np.ndarray, int]:
        """Returns pixels and the label, as `Pictures` has it."""
        return self._split.picture(number)


class ScaledPicture(NamedTuple):
    """A picture at every scale.

    Attributes:
        pixels: uint8 `[h, w, C]`, one per scale.
        label: its class.
        is_cut: whether it was longer than the longest shape, and lost its ends.
    """

    pixels: list[np.ndarray]
    label: int
    is_cut: bool


def read_ahead(
    source: Pictures, scales: Sequence[int]
) -> Iterator[ScaledPicture | str]:
    """Yields each picture, in order, at every scale; or why it is damaged.

    Args:
        source: the pictures.
        scales: pixels of the smaller side.

    >>> photographs = [(np.zeros((12, 9, 3), np.uint8), 3)]
    >>> (found,) = read_ahead(photographs, (6, 9))
    >>> [pixels.shape for pixels in found.pixels], found.label
    ([(8, 6, 3), (12, 9, 3)], 3)
    """
    read = functools.partial(_read, source, scales)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = itertools.batched(range(len(source)), _AHEAD)
        coming = [pool.submit(read, number) for number in next(chunks, ())]
        while coming:
            found = coming
            coming = [pool.submit(read, number) for number in next(chunks, ())]
            for future in found:
                yield future.result()


def _read(source: Pictures, scales: Sequence[int], number: int) -> ScaledPicture | str:
    try:
        whole, label = source[number]
    except ValueError as error:
        return str(error)
    shown = cut_to_ratio(whole)
    grey = shown.shape[-1] == 1
    picture = PIL.Image.fromarray(shown[..., 0] if grey else shown)
    scaled = [np.asarray(pictures.scale(picture, scale)) for scale in scales]
    rows = [pixels.reshape(*pixels.shape[:2], -1) for pixels in scaled]
    return ScaledPicture(rows, int(label), shown.shape != whole.shape)
