"""Metrics: sums that count every image once, against float64 by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.data import batches
from vgg_jax.data.datasets import Split
from vgg_jax.evaluation import metrics


def softmax_loss(logits, labels, smoothing=0.0):
    """-sum(q log p), q = (1 - s) one_hot + s / K (Szegedy et al. 2016), in float64."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    classes = logits.shape[-1]
    q = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    return -(q * log_p).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy(smoothing):
    numbers = np.random.default_rng(0)
    logits = 3 * numbers.normal(size=(50, 7)).astype(np.float32)
    labels = numbers.integers(0, 7, 50)
    got = metrics.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    assert got.shape == (50,) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, softmax_loss(logits, labels, smoothing), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [7, 33, 101, 128])
def test_merged_sums_are_the_numbers_of_the_whole_set(batch_size):
    """The padding is given the best logits there are, and NaN; it counts nowhere."""
    labels_of_all = (np.arange(101) * 7 % 10).astype(np.int32)
    split = Split(np.zeros((101, 2, 2, 3), np.uint8), labels_of_all)
    logits = np.random.default_rng(0).normal(size=(101, 10)).astype(np.float32)
    total, rows = metrics.Sums.zero(), 0
    for batch in batches.evaluation(split, batch_size=batch_size):
        labels = batch.labels
        own = np.full((batch_size, 10), np.nan, np.float32)
        real = labels >= 0
        own[real] = logits[rows : rows + real.sum()]
        own[~real & (np.arange(batch_size) % 2 == 0)] = np.eye(10)[0]
        rows += real.sum()
        own, labels = jnp.asarray(own), jnp.asarray(labels)
        total += metrics.Sums.of(metrics.cross_entropy(own, labels), own, labels)
    best = np.argsort(-logits, axis=1)
    want = {
        "loss": softmax_loss(logits, split.labels).mean(),
        "accuracy": (best[:, 0] == split.labels).mean(),
        "top5": (best[:, :5] == split.labels[:, None]).any(1).mean(),
    }
    assert float(total.count) == 101
    assert total.means() == pytest.approx(want, rel=1e-5)
    assert 0 < want["accuracy"] < want["top5"] < 1


@pytest.mark.parametrize(
    "logits, top1, top5",
    [
        ([0.0] * 10, 0, 0),  # a constant network knows nothing
        ([1.0, 1.0] + [0.0] * 8, 0, 1),
        ([1.0] + [0.0] * 9, 1, 1),
        ([1.0] * 5 + [0.0] * 5, 0, 1),
        ([1.0] * 6 + [0.0] * 4, 0, 0),
    ],
)
def test_ties_count_against_the_network(logits, top1, top5):
    sums = metrics.Sums.of(jnp.ones(1), jnp.array([logits]), jnp.array([0]))
    assert (float(sums.top1), float(sums.top5)) == (top1, top5)


@pytest.mark.parametrize("own", [np.nan, 1.0])
def test_a_network_of_nan_scores_nothing(own):
    logits = jnp.array([[own] + [np.nan] * 9])
    sums = metrics.Sums.of(jnp.ones(1), logits, jnp.array([0]))
    assert (float(sums.top1), float(sums.top5)) == (0, 0)


def test_the_loss_of_padding_is_left_out():
    losses, labels = jnp.array([2.0, jnp.nan, 3.0]), jnp.array([0, -1, 1])
    sums = metrics.Sums.of(losses, jnp.eye(3), labels)
    assert (float(sums.loss), float(sums.count)) == (5, 2)


def test_no_examples():
    assert metrics.Sums.zero().means() == {"loss": 0, "accuracy": 0, "top5": 0}


def test_confusion_and_accuracy_of_each_class():
    guesses = np.array([0, 0, 1, 2, 2, 1, 0])
    labels = np.array([0, 1, 1, 2, 0, -1, -1])
    got = np.asarray(metrics.confusion(jnp.eye(4)[guesses], jnp.asarray(labels)))
    want = [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.int32
    names = ("cat", "dog", "frog", "ship")  # no ship was seen
    assert metrics.per_class(got, names) == {"cat": 0.5, "dog": 0.5, "frog": 1.0}
