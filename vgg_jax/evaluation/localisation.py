"""The error of localisation: boxes that overlap too little with the true ones.

As ILSVRC and the paper's appendix A count it: a box is right if the intersection of it
and the true one is above half of their union.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.data.boxes import Boxes, iou
from vgg_jax.errors import ConfigError

RIGHT = 0.5  # intersection over union, which must be exceeded


def is_right(predicted: Boxes, true: Boxes) -> jax.Array:
    """Returns which boxes are right, bool `[...]`.

    Args:
        predicted: float32 `[..., 4]` (`data.boxes`).
        true: float32 `[..., 4]`.
    """
    return jnp.asarray(iou(predicted, true) > RIGHT)


def error(predicted: Boxes, true: Boxes) -> float:
    """Returns the share of pictures whose box is wrong, in [0, 1].

    This is the paper's first protocol if `predicted` are the boxes for the true class.

    Args:
        predicted: float32 `[N, 4]` (`data.boxes`), N at least 1.
        true: float32 `[N, 4]`.

    Raises:
        ConfigError: there are not as many of each, or none.

    >>> true = np.float32([[0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1]])
    >>> error(np.float32([[0.5, 0.5, 1, 0.6], [0.5, 0.5, 1, 0.5]]), true)
    0.5
    """
    _check(predicted, true)
    return float(1 - np.mean(is_right(predicted, true)))


def error_per_class(
    predicted: Boxes, true: Boxes, labels: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """Returns the error of the pictures of each class; absent classes are left out.

    Args:
        predicted: as for `error`.
        true: as for `error`.
        labels: int `[N]`.
        names: of the classes, in the order of their labels.

    >>> true = np.float32([[0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1]])
    >>> error_per_class(true, true, np.array([2, 2]), ("cat", "dog", "frog"))
    {'frog': 0.0}
    """
    _check(predicted, true)
    wrong, labels = ~np.asarray(is_right(predicted, true)), np.asarray(labels)
    return {
        name: float(wrong[labels == i].mean())
        for i, name in enumerate(names)
        if (labels == i).any()
    }


def top_error(
    guesses: np.ndarray, predicted: Boxes, labels: np.ndarray, true: Boxes
) -> float:
    """Returns the share of pictures of which no guess has the right class and box.

    This is ILSVRC's measure, and the paper's second protocol, with k = 5 guesses.

    Args:
        guesses: int `[N, k]`, classes.
        predicted: float32 `[N, k, 4]`, a box for each.
        labels: int `[N]`, the true classes.
        true: float32 `[N, 4]`.

    Raises:
        ConfigError: as `error`.

    >>> whole = np.float32([[0.5, 0.5, 1, 1]])
    >>> top_error(np.array([[3, 4]]), whole[None, [0, 0]], np.array([4]), whole)
    0.0
    """
    _check(predicted[:, 0], true)
    right = np.asarray(is_right(predicted, true[:, None]))
    return float(1 - np.mean((right & (guesses == labels[:, None])).any(1)))


def _check(predicted: Boxes, true: Boxes) -> None:
    if predicted.shape != true.shape or true.shape[1:] != (4,) or not len(true):
        raise ConfigError(
            f"boxes of shapes {list(predicted.shape)} and {list(true.shape)}: both "
            "must be [N, 4], one box per picture, and at least one"
        )
