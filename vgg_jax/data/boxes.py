"""Bounding boxes as the paper's appendix A has them, and windows of a picture.

A box is `(centre x, centre y, width, height)` in shares of a picture's width and
height: `(0.5, 0.5, 1, 1)` is the whole picture. x grows to the right, y downwards. A
window that is cut out of a picture is a box of that picture, too.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vgg_jax.errors import ConfigError

QUANTITIES = ("centre x", "centre y", "width", "height")
_SHOWN = 4  # digits of a box in a message
Boxes = Any  # numpy.ndarray on the host, jax.Array inside jit


def check_boxes(boxes: np.ndarray, count: int) -> None:
    """Checks the true boxes of pictures.

    Args:
        boxes: what should be float32 `[N, 4]`.
        count: number of pictures.

    Raises:
        ConfigError: there is not one box per picture, or one has no area, or its centre
            is outside of the picture, or it is not finite: pixels are no shares.

    >>> check_boxes(np.float32([[0.5, 0.5, 0.2, 0.4]]), 1)
    >>> check_boxes(np.float32([[32, 32, 12, 25]]), 1)
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: box 0 is [32.0, 32.0, 12.0, 25.0]: its centre must be \
in [0, 1] and its sides above 0, in shares of the picture; divide pixels by its width \
and height
    """
    if np.shape(boxes) != (count, len(QUANTITIES)):
        raise ConfigError(
            f"boxes of shape {list(np.shape(boxes))} are not [{count}, 4], one "
            "(centre x, centre y, width, height) for each picture"
        )
    if boxes.dtype != np.float32:
        raise ConfigError(f"boxes of type {boxes.dtype}: they must be float32")
    centres, sides = np.split(boxes, 2, axis=1)
    inside = ((centres >= 0) & (centres <= 1)).all(1)
    good = inside & ((sides > 0) & np.isfinite(sides)).all(1)
    if not good.all():
        i = int(np.argmin(good))
        shown = [round(float(x), _SHOWN) for x in boxes[i]]
        raise ConfigError(
            f"box {i} is {shown}: its centre must be in [0, 1] and its sides above 0, "
            "in shares of the picture; divide pixels by its width and height"
        )


def in_window(boxes: Boxes, windows: Boxes) -> Boxes:
    """Returns boxes of a picture in shares of a window of it.

    Args:
        boxes: `[..., 4]`; parts of them may be outside of the window.
        windows: as many dimensions, in shares of the picture.

    >>> in_window(np.float32([0.5, 0.5, 0.25, 0.25]), np.float32([0.25, 0.5, 0.5, 1]))
    array([1.  , 0.5 , 0.5 , 0.25], dtype=float32)
    """
    centres = (boxes[..., :2] - windows[..., :2]) / windows[..., 2:] + 0.5
    return _joined(boxes, centres, boxes[..., 2:] / windows[..., 2:])


def of_window(boxes: Boxes, windows: Boxes) -> Boxes:
    """Returns boxes of a window in shares of the picture; the inverse of `in_window`.

    >>> of_window(np.float32([1, 0.5, 0.5, 0.25]), np.float32([0.25, 0.5, 0.5, 1]))
    array([0.5 , 0.5 , 0.25, 0.25], dtype=float32)
    """
    centres = (boxes[..., :2] - 0.5) * windows[..., 2:] + windows[..., :2]
    return _joined(boxes, centres, boxes[..., 2:] * windows[..., 2:])


def mirrored(boxes: Boxes) -> Boxes:
    """Returns the boxes of pictures that are turned from left to right.

    >>> mirrored(np.float32([0.25, 0.5, 0.5, 1]))
    array([0.75, 0.5 , 0.5 , 1.  ], dtype=float32)
    """
    return _joined(boxes, 1 - boxes[..., :1], boxes[..., 1:])


def _joined(like: Boxes, *parts: Boxes) -> Boxes:
    return _library(like).concatenate(parts, axis=-1)


def _library(array: Boxes) -> Any:
    """Returns NumPy for its own arrays, which it takes less time to start."""
    return np if isinstance(array, np.ndarray) else jnp


def iou(first: Boxes, second: Boxes) -> Boxes:
    """Returns the area that two boxes share over the area that either covers.

    Args:
        first: float32 `[..., 4]`. A negative side counts as 0.
        second: of the same shape, or with as many dimensions that broadcast.

    Returns:
        float32 `[...]`, in [0, 1]; 0 where neither box has an area.

    >>> half, whole = jnp.array([0.25, 0.5, 0.5, 1.0]), jnp.array([0.5, 0.5, 1.0, 1.0])
    >>> iou(half, whole).item()
    0.5
    """
    library = _library(first)
    (low_a, high_a, area_a), (low_b, high_b, area_b) = map(_extent, (first, second))
    sides = library.minimum(high_a, high_b) - library.maximum(low_a, low_b)
    shared = library.maximum(sides, 0).prod(-1)
    union = area_a + area_b - shared
    return shared / library.where(union > 0, union, 1)


def _extent(boxes: Boxes) -> tuple[Boxes, Boxes, Boxes]:
    """Returns the top left and the bottom right corner, and the area."""
    sides = _library(boxes).maximum(boxes[..., 2:], 0)
    return boxes[..., :2] - sides / 2, boxes[..., :2] + sides / 2, sides.prod(-1)
