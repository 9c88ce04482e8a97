"""Composites: what is in the box is the image, and the rest is the photograph."""

import numpy as np
import pytest

from vgg_jax.data.composites import composites
from vgg_jax.data.in_memory import Split
from vgg_jax.errors import ConfigError

COLOURS = np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
SPLIT = Split(
    np.broadcast_to(COLOURS[:, None, None], (3, 32, 32, 3)).copy(), np.int32([7, 8, 9])
)
GREY = [np.full((70, 100, 3), 90, np.uint8), np.full((64, 64, 3), 120, np.uint8)]


def test_the_box_is_exact():
    """Every pixel of it has the image's colour, and no other pixel has."""
    made = composites(SPLIT, GREY, seed=0, copies=20)
    assert made.images.shape == (60, 64, 64, 3) and made.images.dtype == np.uint8
    assert made.boxes.dtype == np.float32
    for image, label, box in zip(*made, strict=True):
        mask = (image == COLOURS[label - 7]).all(2)
        left, top = np.round(64 * (box[:2] - box[2:] / 2)).astype(int)
        width, height = np.round(64 * box[2:]).astype(int)
        assert mask[top : top + height, left : left + width].all()
        assert mask.sum() == width * height
        assert set(np.unique(image[~mask])) <= {90, 120}


def test_sides_reach_both_ends_and_are_independent():
    boxes = 64 * composites(SPLIT, GREY, seed=1, copies=200).boxes
    for sides in boxes[:, 2:].T:
        assert sides.min() < 25.5 and sides.max() > 46.5
        assert 24 <= sides.min() and sides.max() <= 48
    assert abs(np.corrcoef(boxes[:, 2], boxes[:, 3])[0, 1]) < 0.2  # 4.9 deviations
    edges = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    assert edges[0].min() == 0 and edges[1].max() == 64


def test_backgrounds_are_windows_of_the_photographs():
    """A photograph whose pixels say where they are: windows of several sizes."""
    x, y = np.meshgrid(np.arange(200), np.arange(200))
    ramp = np.stack([x, y, np.full_like(x, 255)], 2).astype(np.uint8)
    made = composites(SPLIT, [ramp], seed=0, copies=50)
    steps = []
    for image, box in zip(made.images, made.boxes, strict=True):
        pixels = image.astype(float)
        row = 0 if box[1] - box[3] / 2 > 0 else 63
        if box[1] + box[3] / 2 < 1 or row == 0:
            steps.append((pixels[row, 55, 0] - pixels[row, 8, 0]) / 47)
    assert min(steps) < 1.2 and max(steps) > 2.7  # 64 ... 200 pixels across
    assert min(steps) > 0.9 and max(steps) < 3.2


def test_each_is_a_function_of_seed_and_number():
    whole = composites(SPLIT, GREY, seed=4, copies=2)
    again = composites(SPLIT, GREY, seed=4, copies=1)
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a[:3], b)
    assert len(np.unique(whole.boxes, axis=0)) == 6
    assert not np.array_equal(composites(SPLIT, GREY, seed=5).boxes, again.boxes)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"backgrounds": []}, "at least one photograph"),
        ({"backgrounds": [np.zeros((64, 63, 3), np.uint8)]}, "at least 64 pixels"),
        (
            {"backgrounds": [np.zeros((64, 64), np.uint8)]},
            r"background 0 is uint8 \[64",
        ),
        ({"backgrounds": [np.zeros((64, 64, 3))]}, "background 0 is float64"),
        ({"stretch": (0.5, 2.5)}, "into 16 to 80 pixels: they must fit into size=64"),
        ({"stretch": (1.5, 0.5)}, r"stretch=\(1.5, 0.5\)"),
        ({"size": 40}, "fit into size=40"),
    ],
)
def test_what_cannot_be_made_is_told(change, message):
    how = {"split": SPLIT, "backgrounds": GREY, "seed": 0} | change
    with pytest.raises(ConfigError, match=message):
        composites(**how)
