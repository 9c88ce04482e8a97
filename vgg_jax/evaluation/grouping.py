"""Scaled pictures of many sizes in few shapes, so that few programs are compiled."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Larger side of a shape over the smaller one. A picture goes into the least that holds
# it; most photographs are 4:3 or 3:2.
RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
SHAPES = 2 * len(RATIOS) - 1  # per scale, at most: wide and high ones


class Item(NamedTuple):
    """A scaled picture, or a crop of one.

    Attributes:
        number: of the picture.
        pixels: uint8 `[h, w, C]`.
    """

    number: int
    pixels: np.ndarray


class Group(NamedTuple):
    """Items of one shape.

    Attributes:
        numbers: of the pictures, int `[n]`, n at most B.
        pixels: uint8 `[B, H, W, C]`; each item lies at the left and the top, zeros are
            around it, and from `n` on there is nothing else.
        sizes: height and width of each, int32 `[B, 2]`; H and W from `n` on.
    """

    numbers: np.ndarray
    pixels: np.ndarray
    sizes: np.ndarray


def shape_for(height: int, width: int) -> tuple[int, int]:
    """Returns the shape for a scaled picture, `(H, W)`.

    >>> shape_for(256, 341), shape_for(256, 256), shape_for(500, 256)
    ((256, 384), (256, 256), (512, 256))
    """
    small, large = sorted((height, width))
    sides = (math.ceil(ratio * small) for ratio in RATIOS)
    side = next((side for side in sides if side >= large), large)
    return (small, side) if height <= width else (side, small)


def cut_to_ratio(picture: np.ndarray) -> np.ndarray:
    """Returns the centre of a picture that is longer than the longest shape.

    >>> cut_to_ratio(np.zeros((2, 20, 3))).shape
    (2, 16, 3)
    """
    most = int(RATIOS[-1] * min(picture.shape[:2]))
    starts = [max(0, (side - most) // 2) for side in picture.shape[:2]]
    rows, columns = (slice(start, start + most) for start in starts)
    return picture[rows, columns]


class Grouping:
    """Collects items by shape, and gives them out in groups of about as many pixels.

    Args:
        pixels: of a group, about; there is one item at least.
        multiple: of which the number of rows of a group is one.

    Attributes:
        shapes: those that were given out.

    >>> grouping = Grouping(pixels=100)
    >>> items = [Item(n, np.zeros((4, 5, 3), np.uint8)) for n in range(5)]
    >>> groups = [*grouping.add(items), *grouping.rest()]
    >>> [(group.numbers.tolist(), group.pixels.shape) for group in groups]
    [([0, 1, 2, 3, 4], (5, 4, 5, 3))]
    """

    def __init__(self, pixels: int, multiple: int = 1) -> None:
        self._pixels, self._multiple = pixels, multiple
        self._waiting: dict[tuple[int, int], list[Item]] = {}
        self.shapes: set[tuple[int, int]] = set()

    def add(self, items: Sequence[Item]) -> Iterator[Group]:
        """Yields the groups that became full."""
        for item in items:
            shape = shape_for(*item.pixels.shape[:2])
            waiting = self._waiting.setdefault(shape, [])
            waiting.append(item)
            if len(waiting) == self._rows(shape):
                yield self._group(shape)

    def rest(self) -> Iterator[Group]:
        """Yields what is left, in groups that are not full."""
        for shape in [*self._waiting]:
            yield self._group(shape)

    def _rows(self, shape: tuple[int, int]) -> int:
        rows = max(1, self._pixels // math.prod(shape))
        return -(-rows // self._multiple) * self._multiple

    def _group(self, shape: tuple[int, int]) -> Group:
        items, rows = self._waiting.pop(shape), self._rows(shape)
        self.shapes.add(shape)
        channels = items[0].pixels.shape[-1]
        pixels = np.zeros((rows, *shape, channels), np.uint8)
        sizes = np.full((rows, 2), shape, np.int32)
        for i, item in enumerate(items):
            height, width = sizes[i] = item.pixels.shape[:2]
            pixels[i, :height, :width] = item.pixels
        return Group(np.array([item.number for item in items]), pixels, sizes)
