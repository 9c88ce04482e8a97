"""Scaled pictures of many sizes in few shapes, so that few programs are compiled."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Larger side of a shape over the smaller one. A picture goes into the least that holds
# it; most photographs are 4:3 or 3:2.
RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
SHAPES = 2 * len(RATIOS) - 1  # per scale, at most: wide and high ones
PROGRAMS = 2 * SHAPES  # per scale, at most: a full batch, and what is left in the end


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
        is_full: whether it is one of perhaps many of its shape; if not, it is what was
            left in the end.
    """

    numbers: np.ndarray
    pixels: np.ndarray
    sizes: np.ndarray
    is_full: bool


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
        shapes: of the pixels that were given out, `(B, H, W)`, and `Group.is_full`.

    >>> grouping = Grouping(pixels=100)
    >>> items = [Item(n, np.zeros((4, 5, 3), np.uint8)) for n in range(5)]
    >>> groups = [*grouping.add(items), *grouping.rest()]
    >>> [(group.numbers.tolist(), group.pixels.shape) for group in groups]
    [([0, 1, 2, 3, 4], (5, 4, 5, 3))]
    >>> (group,) = [*grouping.add(items[:3]), *grouping.rest()]
    >>> group.numbers.tolist(), group.pixels.shape
    ([0, 1, 2], (4, 4, 5, 3))
    """

    def __init__(self, pixels: int, multiple: int = 1) -> None:
        self._pixels, self._multiple = pixels, multiple
        self._waiting: dict[tuple[int, int], list[Item]] = {}
        self.shapes: set[tuple[int, int, int, bool]] = set()

    def add(self, items: Sequence[Item]) -> Iterator[Group]:
        """Yields the groups that became full."""
        for item in items:
            shape = shape_for(*item.pixels.shape[:2])
            waiting = self._waiting.setdefault(shape, [])
            waiting.append(item)
            if len(waiting) == (rows := self._rows(shape)):
                yield self._group(shape, rows, is_full=True)

    def rest(self) -> Iterator[Group]:
        """Yields what is left, in groups of up to twice as many rows as items."""
        for shape, items in [*self._waiting.items()]:
            least = 1 << (len(items) - 1).bit_length()
            rows = min(self._rounded(least), self._rows(shape))
            yield self._group(shape, rows, is_full=False)

    def _rows(self, shape: tuple[int, int]) -> int:
        return self._rounded(max(1, self._pixels // math.prod(shape)))

    def _rounded(self, rows: int) -> int:
        return -(-rows // self._multiple) * self._multiple

    def _group(self, shape: tuple[int, int], rows: int, *, is_full: bool) -> Group:
        items = self._waiting.pop(shape)
        self.shapes.add((rows, *shape, is_full))
        channels = items[0].pixels.shape[-1]
        pixels = np.zeros((rows, *shape, channels), np.uint8)
        sizes = np.full((rows, 2), shape, np.int32)
        for i, item in enumerate(items):
            height, width = sizes[i] = item.pixels.shape[:2]
            pixels[i, :height, :width] = item.pixels
        numbers = np.array([item.number for item in items])
        return Group(numbers, pixels, sizes, is_full)
