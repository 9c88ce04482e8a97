"""Image transforms: what they may and may not do to a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.training import augment
from vgg_jax.training.augment import Augment


def train(options, images, key=0, epoch=0, index=None, run_key=100):
    """`Augment.train` with keys given as seeds."""
    return Augment(**options).train(
        images,
        key=jax.random.key(key),
        run_key=jax.random.key(run_key),
        index=jnp.arange(len(images)) if index is None else index,
        epoch=jnp.int32(epoch),
    )


def noise(*shape, seed=0):
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, shape, dtype=np.uint8)


def mirrored(options, images, **how):
    """Which images came out mirrored; fails on any other change."""
    got = np.asarray(train({"normalize": "unit"} | options, images, **how)) * 255
    same = np.isclose(got, images, atol=1e-3).all((1, 2, 3))
    turned = np.isclose(got, images[:, :, ::-1], atol=1e-3).all((1, 2, 3))
    assert (same ^ turned).all()
    return turned


@pytest.mark.parametrize(
    "mode, padding", [("zero", "constant"), ("reflect", "reflect")]
)
def test_crops_are_windows_of_the_padded_image(mode, padding):
    images = noise(600, 6, 7, 3)
    got = np.asarray(augment.random_crop(jax.random.key(0), images, 2, mode))
    assert got.dtype == np.uint8 and got.shape == images.shape
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), padding)
    windows = np.array(
        [padded[:, i : i + 6, j : j + 7] for i in range(5) for j in range(5)]
    )
    found = (windows == got).all((2, 3, 4))  # [offset, image]
    assert (found.sum(0) == 1).all()
    # All 25 offsets: one is missed with probability 25 * (24/25)^600 = 6e-10.
    assert found.any(1).all()


def test_random_flip():
    images = noise(1000, 3, 5, 3)
    flips = [mirrored({"flip": "random"}, images, key=key) for key in (0, 1)]
    for turned in flips:
        assert abs(turned.mean() - 0.5) < 0.08  # 5 standard deviations
    assert abs((flips[0] ^ flips[1]).mean() - 0.5) < 0.08  # another key, another coin
    assert not mirrored({}, images).any()


def test_alternating_flip():
    """airbench: half in the first epoch, then each image the other way every epoch."""
    images = noise(1000, 3, 5, 3)
    options = {"flip": "alternating"}
    epochs = [mirrored(options, images, epoch=e, key=e) for e in range(4)]
    assert abs(epochs[0].mean() - 0.5) < 0.08
    for before, after in zip(epochs, epochs[1:], strict=False):
        assert (before ^ after).all()
    # The coin belongs to the image, wherever it stands in the batch, and to the run.
    order = np.random.default_rng(0).permutation(1000)
    turned = mirrored(options, images[order], index=jnp.asarray(order))
    assert (turned == epochs[0][order]).all()
    assert (mirrored(options, images, run_key=101) != epochs[0]).any()


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_is_one_square_with_a_uniform_centre(size):
    shape = (2000, 12, 9, 2)
    got = np.asarray(augment.cutout(jax.random.key(0), jnp.ones(shape), size))
    assert set(np.unique(got)) == {0, 1}
    hole = got[..., 0] == 0
    assert (hole == (got[..., 1] == 0)).all()
    rows, columns = hole.any(2), hole.any(1)
    assert (hole == rows[:, :, None] & columns[:, None, :]).all()  # a rectangle
    for covered, length in ((rows, 12), (columns, 9)):
        assert (np.abs(np.diff(covered, axis=1)).sum(1) <= 2).all()  # in one piece
        # What a square centred on each pixel covers, cut at the edge.
        starts = np.arange(length) - size // 2
        lengths = np.minimum(starts + size, length) - np.maximum(starts, 0)
        assert set(covered.sum(1)) == set(lengths)
        assert covered.sum(1).mean() == pytest.approx(lengths.mean(), rel=0.03)
    assert hole.sum((1, 2)).max() == size**2


def test_cutout_comes_after_normalisation():
    """The hole is the mean colour (DeVries & Taylor, 2017), also after resizing."""
    options = {"cutout": 4, "resize": 12, "normalize": "symmetric"}
    got = np.asarray(train(options, np.full((50, 8, 8, 3), 255, np.uint8)))
    holes = (got == 0).all(3)
    np.testing.assert_allclose(got, np.where(holes, 0, 1)[..., None] * np.ones(3), 1e-5)
    assert holes.any((1, 2)).all() and holes.sum((1, 2)).max() == 16


EVERYTHING = {
    "crop": 2,
    "crop_mode": "reflect",
    "flip": "random",
    "cutout": 3,
    "resize": 12,
    "normalize": "cifar10",
}


def test_a_key_decides_everything():
    images = jnp.asarray(noise(8, 8, 8, 3))
    first = train(EVERYTHING, images)
    np.testing.assert_array_equal(first, train(EVERYTHING, images))
    assert (first != train(EVERYTHING, images, key=1)).any()
    assert first.shape == (8, 12, 12, 3) and first.dtype == jnp.float32


def test_each_image_is_cropped_in_its_own_way():
    images = jnp.asarray(np.repeat(noise(1, 8, 8, 3), 20, axis=0))
    got = np.asarray(train({"crop": 2}, images))
    assert len(np.unique(got.reshape(20, -1), axis=0)) > 5


def test_evaluation_has_nothing_random():
    images = jnp.asarray(noise(4, 8, 8, 3))
    plain = Augment(resize=12, normalize="cifar10").evaluate(images)
    np.testing.assert_array_equal(Augment(**EVERYTHING).evaluate(images), plain)
    off = train({"resize": 12, "normalize": "cifar10"}, images)
    np.testing.assert_array_equal(off, plain)


@pytest.mark.parametrize("flip", augment.FLIPS)
def test_under_jit(flip):
    images = jnp.asarray(noise(6, 8, 8, 3))
    options = EVERYTHING | {"flip": flip}
    jitted = jax.jit(lambda images, key, epoch: train(options, images, key, epoch))
    got, want = jitted(images, 0, 1), train(options, images, epoch=1)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options, known",
    [
        ({"normalize": "F"}, ["unit", "symmetric", "cifar10", "imagenet", "data"]),
        ({"flip": "F"}, ["none", "random", "alternating"]),
        ({"crop": 1, "crop_mode": "F"}, ["zero", "reflect"]),
    ],
)
def test_unknown_names(options, known):
    with pytest.raises(ConfigError, match="'F'") as error:
        train(options, noise(1, 4, 4, 3))
    assert all(name in str(error.value).split(":")[-1] for name in known)
