"""Errors of localisation on boxes whose overlap is known by hand."""

import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.evaluation.localisation import error, error_per_class, top_error

WHOLE = [0.5, 0.5, 1, 1]
TRUE = np.float32([WHOLE] * 4)
# Shares of the whole picture, which are the overlaps: 0.5 is not above a half.
SHARES = np.float32([[0.5, 0.5, 1, s] for s in (1, 0.51, 0.5, 0.25)])


def test_half_is_wrong_and_more_is_right():
    """ILSVRC and appendix A: right is an overlap "above 0.5"."""
    assert error(SHARES, TRUE) == 0.5
    assert [error(SHARES[i : i + 1], TRUE[:1]) for i in range(4)] == [0, 0, 1, 1]


def test_each_class_by_itself():
    labels, names = np.array([2, 0, 2, 2]), ("cat", "dog", "frog")
    got = error_per_class(SHARES, TRUE, labels, names)
    assert got == {"cat": 0, "frog": pytest.approx(2 / 3)}


def test_a_guess_needs_both_class_and_box():
    """Right box of a wrong class, wrong box of the right class, both at one place."""
    right, wrong = WHOLE, [0.1, 0.1, 0.1, 0.1]
    boxes = np.float32([[right, wrong], [right, wrong], [wrong, right], [wrong, wrong]])
    guesses = np.array([[3, 4], [4, 3], [4, 3], [3, 4]])
    labels = np.array([3, 3, 3, 3])
    assert top_error(guesses, boxes, labels, TRUE) == 0.5
    assert top_error(guesses[:, :1], boxes[:, :1], labels, TRUE) == 0.75


def test_shapes_and_emptiness_are_told():
    for predicted, true in ((TRUE[:2], TRUE), (TRUE[:0], TRUE[:0]), (TRUE[0], TRUE[0])):
        with pytest.raises(ConfigError, match=r"both must be \[N, 4\]"):
            error(predicted, true)
