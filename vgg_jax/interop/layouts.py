"""How files order the axes of a kernel, beside ours: HWIO, and `[H W C, K]` when dense.

PyTorch has the outputs first, and flattens a map channels first. Keras has our order.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """An order of the axes of a kernel in a file.

    Attributes:
        axes: their number.
        to_ours, to_file: functions of a kernel and the number of channels of the map
            that a dense layer flattens, or of its inputs where it flattens none.
    """

    axes: int
    to_ours: Callable[[np.ndarray, int], np.ndarray]
    to_file: Callable[[np.ndarray, int], np.ndarray]


def _side(values: int, channels: int) -> int:
    """Returns the side of the square map that has so many values."""
    side = math.isqrt(values // channels)
    if not side or side * side * channels != values:
        raise ValueError(f"{values} inputs are no square map of {channels} channels")
    return side


def _from_maps(x: np.ndarray, channels: int) -> np.ndarray:  # [K, C, H, W]
    del channels
    return x.transpose(2, 3, 1, 0).reshape(-1, len(x))


def _to_maps(x: np.ndarray, channels: int) -> np.ndarray:  # [H W C, K]
    side = _side(len(x), channels)
    return x.reshape(side, side, channels, -1).transpose(3, 2, 0, 1)


def _from_flat(x: np.ndarray, channels: int) -> np.ndarray:  # [K, C H W]
    side = _side(x.shape[1], channels)
    return _from_maps(x.reshape(len(x), channels, side, side), channels)


def _to_flat(x: np.ndarray, channels: int) -> np.ndarray:  # [H W C, K]
    return _to_maps(x, channels).reshape(x.shape[1], -1)


OWN_CONV = Layout(4, lambda x, _: x, lambda x, _: x)
OWN_DENSE = OWN_CONV._replace(axes=2)
OIHW = Layout(
    4, lambda x, _: x.transpose(2, 3, 1, 0), lambda x, _: x.transpose(3, 2, 0, 1)
)
MAPS = Layout(4, _from_maps, _to_maps)  # a dense layer as a convolution
FLAT = Layout(2, _from_flat, _to_flat)
