"""Batches: every image is seen once."""

import numpy as np
import pytest

from vgg_jax.data import batches
from vgg_jax.data.datasets import Split
from vgg_jax.errors import ConfigError


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


def seen(epoch_batches):
    return np.concatenate([batch.index for batch in epoch_batches])


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100])
def test_an_epoch_sees_every_image_once(batch_size):
    split = make_split(300)
    epoch_batches = epoch(split, batch_size=batch_size, remainder="keep")
    assert sorted(seen(epoch_batches)) == list(range(300))
    for batch in epoch_batches:
        assert (numbers_of(batch.images) == batch.index).all()
        assert (batch.labels == batch.index * 7 % 10).all()
        types = {name: value.dtype for name, value in batch._asdict().items()}
        assert types == {
            "images": np.uint8,
            "labels": np.int32,
            "index": np.int32,
            "epoch": np.int32,
        }


def test_order_changes_with_epoch_and_seed_and_with_nothing_else():
    split = make_split(300)
    orders = [seen(epoch(split, seed=s, epoch=e)) for s in (0, 1) for e in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    assert (seen(epoch(split, seed=1, epoch=1)) == orders[3]).all()
    assert not (np.diff(orders[0]) == 1).all()  # shuffled at all
    assert epoch(split, epoch=3)[0].epoch == 3


@pytest.mark.parametrize("remainder", batches.REMAINDERS)
@pytest.mark.parametrize("start", [0, 1, 11, 18, 19])
def test_an_epoch_can_be_taken_up_anywhere(start, remainder):
    split = make_split(300)
    whole = epoch(split, epoch=2, remainder=remainder)
    tail = epoch(split, epoch=2, start=start, remainder=remainder)
    assert len(tail) == len(whole) - start if start < len(whole) else not tail
    for got, want in zip(tail, whole[start:], strict=True):
        for got_array, want_array in zip(got, want, strict=True):
            np.testing.assert_array_equal(got_array, want_array)


# docs/facts.md section 1: 40,000 images in batches of 32 are 1,250 steps. The rest is
# by hand.
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
            epoch_batches = epoch(
                make_split(examples), batch_size=batch_size, remainder=remainder
            )
            sizes = [len(batch.labels) for batch in epoch_batches]
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
    epoch_batches = list(batches.evaluation(split, batch_size=batch_size))
    assert {len(batch.labels) for batch in epoch_batches} == {batch_size}
    images = np.concatenate([batch.images for batch in epoch_batches])
    labels = np.concatenate([batch.labels for batch in epoch_batches])
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(images[:101], split.images)
    np.testing.assert_array_equal(labels[:101], split.labels)
    assert len(labels) - 101 < batch_size
    assert (labels[101:] == -1).all() and not images[101:].any()
