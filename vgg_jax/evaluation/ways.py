"""Ways to look at a scaled picture, and the protocols that combine them."""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from vgg_jax.data.pictures import centred

GRID = 5  # crops per side


class Way(NamedTuple):
    """A way to look at a scaled picture.

    Attributes:
        parts: from the picture, uint8 `[h, w, C]`, and the size of training in pixels
            to what the network sees of it.
        parts_count: how many those are.
        whole: whether the one part is the whole picture, to which the head is applied
            densely; if not, parts have the size of training.
    """

    parts: Callable[[np.ndarray, int], list[np.ndarray]]
    parts_count: int
    whole: bool = False


def _centre(pixels: np.ndarray, size: int) -> list[np.ndarray]:
    top, left = (centred(side, size) for side in pixels.shape[:2])
    return [pixels[top : top + size, left : left + size]]


def grid(pixels: np.ndarray, size: int) -> list[np.ndarray]:
    """Returns squares on a regular grid, from corner to corner, row by row.

    >>> [crop[0, 0] for crop in grid(np.arange(8)[None].repeat(4, 0), 4)[:5]]
    [np.int64(0), np.int64(1), np.int64(2), np.int64(3), np.int64(4)]
    """
    places = [
        [round(i * (side - size) / (GRID - 1)) for i in range(GRID)]
        for side in pixels.shape[:2]
    ]
    corners = itertools.product(*places)
    return [pixels[top : top + size, left : left + size] for top, left in corners]


WAYS: Mapping[str, Way] = {
    "center": Way(_centre, 1),
    "dense": Way(lambda pixels, size: [pixels], 1, whole=True),
    "crops": Way(grid, GRID**2),
}
# A protocol -> its ways, whose posteriors are averaged.
PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in WAYS},
    "dense+crops": ("dense", "crops"),
}
