"""Boxes and windows, against areas that are counted pixel by pixel."""

import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.data.boxes import check_boxes, in_window, iou, mirrored, of_window
from vgg_jax.errors import ConfigError

GRID = 24  # pixels of a side, on whose lines all edges lie


def drawn(count, seed):
    """Returns random boxes with edges on the grid, and their pixels as masks."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, GRID + 1, (count, 2, 2)), axis=2)  # x, y
    ends[..., 1] += ends[..., 0] == ends[..., 1]
    at = np.arange(GRID + 1)
    inside = (at >= ends[..., :1]) & (at < ends[..., 1:])  # [count, 2, GRID + 1]
    boxes = np.concatenate([ends.mean(2), ends[..., 1] - ends[..., 0]], 1) / GRID
    return boxes.astype(np.float32), inside[:, 1, :, None] & inside[:, 0, None]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_iou_counts_pixels(array):
    (first, a), (second, b) = drawn(200, 0), drawn(200, 1)
    wanted = (a & b).sum((1, 2)) / (a | b).sum((1, 2))
    assert (wanted == 0).any() and (wanted > 0.5).any()
    got = iou(array(first), array(second))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert got.dtype == np.float32


def test_iou_of_what_has_no_area_is_0():
    flat = np.float32([[0.5, 0.5, 0, 1], [0.5, 0.5, -1, -1]])
    assert iou(flat, flat).tolist() == [0, 0]


def test_a_window_is_a_picture_of_its_own():
    """The pixels of a box, cut out with the window, are those of the box in it."""
    boxes, masks = drawn(50, 2)
    left, top, width, height = 6, 3, 12, 18
    window = np.float32([[left + width / 2, top + height / 2, width, height]]) / GRID
    seen = in_window(boxes, window)
    for box, mask in zip(seen, masks, strict=True):
        x, y = ((np.arange(n) + 0.5) / n for n in (width, height))
        across = np.abs(x - box[0]) < box[2] / 2
        down = np.abs(y - box[1]) < box[3] / 2
        cut = mask[top : top + height, left : left + width]
        np.testing.assert_array_equal(down[:, None] & across, cut)
    np.testing.assert_allclose(of_window(seen, window), boxes, atol=1e-6)


def test_mirrored_boxes_are_those_of_mirrored_pixels():
    boxes, masks = drawn(50, 3)
    turned, wanted = mirrored(boxes), masks[:, :GRID, :GRID][:, :, ::-1]
    at = (np.arange(GRID) + 0.5) / GRID
    for box, mask in zip(turned, wanted, strict=True):
        across = np.abs(at - box[0]) < box[2] / 2
        down = np.abs(at - box[1]) < box[3] / 2
        np.testing.assert_array_equal(down[:, None] & across, mask)


@pytest.mark.parametrize(
    "boxes, message",
    [
        (np.zeros((2, 4)), r"of shape \[2, 4\] are not \[1, 4\]"),
        (np.float32([[0.5, 0.5, 0.5]]), r"of shape \[1, 3\]"),
        (np.array([[0.5, 0.5, 0.5, 0.5]]), "float64: they must be float32"),
        (np.float32([[0.5, 0.5, 0, 0.5]]), "sides above 0"),
        (np.float32([[1.5, 0.5, 0.5, 0.5]]), r"box 0 is \[1.5, 0.5, 0.5, 0.5\]"),
        (np.float32([[np.nan, 0.5, 0.5, 0.5]]), "box 0 is .nan"),
        (np.float32([[0.5, 0.5, np.inf, 0.5]]), "box 0 is"),
        (np.float32([[20, 20, 10, 10]]), "divide pixels"),
    ],
)
def test_wrong_boxes_are_told(boxes, message):
    with pytest.raises(ConfigError, match=message):
        check_boxes(boxes, 1)
