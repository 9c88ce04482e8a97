"""Greedy merging, against a slow implementation over corners and by hand."""

import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.inference.box_merging import merged, mismatch


def slowly(boxes, scores, threshold):
    """OverFeat's steps (d) to (g), over lists of numbers; see `mismatch`."""
    rows = [[*map(float, box), float(s)] for box, s in zip(boxes, scores, strict=True)]

    def overlap(a, b, axis):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        return max(high - low, 0)

    def match(a, b):
        shared = overlap(a, b, 0) * overlap(a, b, 1)
        union = a[2] * a[3] + b[2] * b[3] - shared
        apart = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5
        return apart + 1 - shared / union

    while len(rows) > 1:
        pairs = [(match(a, b), a, b) for i, a in enumerate(rows) for b in rows[:i]]
        least, a, b = min(pairs, key=lambda pair: pair[0])
        if least > threshold:
            break
        rows = [row for row in rows if row is not a and row is not b]
        mean = [(x + y) / 2 for x, y in zip(a[:4], b[:4], strict=True)]
        rows.append([*mean, a[4] + b[4]])
    return sorted(rows, key=lambda row: -row[4])


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.7, 1.2, 9.0])
def test_it_is_the_greedy_procedure(threshold):
    rng = np.random.default_rng(0)
    left = []
    for _ in range(20):
        boxes = rng.uniform(0.2, 0.8, (9, 4)).astype(np.float32)
        scores = rng.random(9, np.float32)
        wanted = np.array(slowly(boxes, scores, threshold))
        got, sums = merged(boxes, scores, threshold)
        np.testing.assert_allclose(got, wanted[:, :4], atol=1e-5)
        np.testing.assert_allclose(sums, wanted[:, 4], rtol=1e-5)
        assert sums.sum() == pytest.approx(scores.sum(), rel=1e-5)
        left.append(len(got))
    least, most = {0.01: (9, 9), 9.0: (1, 1)}.get(threshold, (1.05, 8.95))
    assert least <= np.mean(left) <= most


def test_the_best_pair_goes_first():
    """By hand: the middle box joins the nearer neighbour, which then is too far."""
    boxes = np.float32([[0.2, 0.5, 0.4, 1], [0.3, 0.5, 0.4, 1], [0.44, 0.5, 0.4, 1]])
    # Shifts of .10 and .14 of .40: .10 + 1 - .30/.50 = .50, .14 + 1 - .26/.54 = .66;
    # then .25 to .44: .19 + 1 - .21/.59 = .83.
    np.testing.assert_allclose(
        mismatch(boxes[:, None], boxes[None])[[0, 1], [1, 2]], [0.5, 0.6585], atol=1e-4
    )
    got, scores = merged(boxes, np.float32([1, 2, 4]), threshold=0.8)
    np.testing.assert_allclose(
        got, [[0.44, 0.5, 0.4, 1], [0.25, 0.5, 0.4, 1]], atol=1e-6
    )
    assert scores.tolist() == [4, 3]


def test_equal_boxes_are_one():
    box = np.float32([0.5, 0.5, 0.3, 0.3])
    got, scores = merged(np.stack([box] * 3), np.ones(3), threshold=1e-6)
    np.testing.assert_allclose(got, [box], atol=1e-6)
    assert scores.tolist() == [3]


@pytest.mark.parametrize(
    "boxes, scores",
    [(np.zeros((0, 4)), np.zeros(0)), (np.zeros((2, 4)), np.zeros(3))],
)
def test_wrong_shapes_are_told(boxes, scores):
    with pytest.raises(ConfigError, match=r"must be \[N, 4\] and \[N\]"):
        merged(boxes, scores)
