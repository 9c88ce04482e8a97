"""Batches and metrics: every image counts once."""

import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.data import batches
from vgg_jax.data.datasets import Split
from vgg_jax.errors import ConfigError
from vgg_jax.evaluation import metrics


def make_split(examples, classes=10):
    """Images that carry their own number, so that a mix-up shows."""
    images = np.zeros((examples, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = divmod(np.arange(examples), 256)
    return Split(images, (np.arange(examples) * 7 % classes).astype(np.int32))


def numbers_of(images):
    return images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]


def epoch(split, seed=0, epoch=0, start=0, batch_size=16, remainder="drop"):
    return list(
        batches.training(
            split,
            seed=seed,
            batch_size=batch_size,
            epoch=epoch,
            start=start,
            remainder=remainder,
        )
    )


def seen(found):
    return np.concatenate([batch["index"] for batch in found])


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100])
def test_an_epoch_sees_every_image_once(batch_size):
    split = make_split(300)
    found = epoch(split, batch_size=batch_size, remainder="keep")
    assert sorted(seen(found)) == list(range(300))
    for batch in found:
        assert (numbers_of(batch["image"]) == batch["index"]).all()
        assert (batch["label"] == batch["index"] * 7 % 10).all()
        types = {name: value.dtype for name, value in batch.items()}
        assert types == {
            "image": np.uint8,
            "label": np.int32,
            "index": np.int32,
            "epoch": np.int32,
        }


def test_order_changes_with_epoch_and_seed_and_with_nothing_else():
    split = make_split(300)
    orders = [seen(epoch(split, seed=s, epoch=e)) for s in (0, 1) for e in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    assert (seen(epoch(split, seed=1, epoch=1)) == orders[3]).all()
    assert not (np.diff(orders[0]) == 1).all()  # shuffled at all
    assert epoch(split, epoch=3)[0]["epoch"] == 3


@pytest.mark.parametrize("remainder", batches.REMAINDERS)
@pytest.mark.parametrize("start", [0, 1, 11, 18, 19])
def test_an_epoch_can_be_taken_up_anywhere(start, remainder):
    split = make_split(300)
    whole = epoch(split, epoch=2, remainder=remainder)
    tail = epoch(split, epoch=2, start=start, remainder=remainder)
    assert len(tail) == len(whole) - start if start < len(whole) else not tail
    for got, want in zip(tail, whole[start:], strict=True):
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])


# facts.md section 1: 40,000 images in batches of 32 are 1,250 steps. The rest by hand.
@pytest.mark.parametrize(
    "examples, batch_size, drop, keep",
    [
        (40_000, 32, 1250, 1250),
        (300, 16, 18, 19),
        (300, 299, 1, 2),
        (300, 300, 1, 1),
        (1, 1, 1, 1),
    ],
)
def test_remainder(examples, batch_size, drop, keep):
    for remainder, steps in (("drop", drop), ("keep", keep)):
        got = batches.steps_per_epoch(examples, batch_size, remainder)
        assert got == steps
        if examples <= 300:
            found = epoch(
                make_split(examples), batch_size=batch_size, remainder=remainder
            )
            sizes = [len(batch["label"]) for batch in found]
            last = batch_size if remainder == "drop" else examples - sum(sizes[:-1])
            assert sizes == [batch_size] * (steps - 1) + [last]


def test_mistakes_are_reported():
    with pytest.raises(ConfigError, match="batch_size=301 .*300 images.* at most 300"):
        epoch(make_split(300), batch_size=301)
    with pytest.raises(ConfigError, match="'pad'.*drop, keep"):
        epoch(make_split(300), remainder="pad")


@pytest.mark.parametrize("batch_size", [1, 7, 33, 101, 300, 512])
def test_evaluation_sees_every_image_once_in_order(batch_size):
    split = make_split(101)
    found = list(batches.evaluation(split, batch_size=batch_size))
    assert {len(batch["label"]) for batch in found} == {batch_size}
    images = np.concatenate([batch["image"] for batch in found])
    labels = np.concatenate([batch["label"] for batch in found])
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(images[:101], split.images)
    np.testing.assert_array_equal(labels[:101], split.labels)
    assert len(labels) - 101 < batch_size
    assert (labels[101:] == -1).all() and not images[101:].any()


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
    split = make_split(101)
    logits = np.random.default_rng(0).normal(size=(101, 10)).astype(np.float32)
    total, rows = metrics.Sums.zero(), 0
    for batch in batches.evaluation(split, batch_size=batch_size):
        labels = batch["label"]
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
