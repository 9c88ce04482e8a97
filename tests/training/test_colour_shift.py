"""Shifts of the colours have the covariance that Krizhevsky et al. (2012) give them."""

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax.data import colour_statistics, datasets
from vgg_jax.training.augment import Augment
from vgg_jax.training.colour_shift import ColourShift

AXES = ((40.0, 39.0, 35.0), (-9.0, 1.0, 8.0))


def test_their_covariance_is_that_of_the_pixels_times_the_strength_squared():
    images = jnp.zeros((20_000, 1, 1, 3), jnp.uint8)
    shifts = np.asarray(ColourShift(0.1, AXES)(jax.random.key(0), images))[:, 0, 0]
    axes = np.array(AXES)
    got, wanted = np.cov(shifts.T), 0.01 * axes.T @ axes
    np.testing.assert_allclose(got, wanted, atol=0.05 * wanted.max())
    np.testing.assert_allclose(shifts.mean(0), 0, atol=0.15)


def test_one_shift_moves_a_whole_image():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3)))
    moved = ColourShift(0.1, AXES)(jax.random.key(0), images.astype(jnp.uint8))
    shifts = np.asarray(moved - images.astype(jnp.float32))
    np.testing.assert_allclose(shifts, shifts[:, :1, :1] + 0 * shifts, atol=1e-4)
    assert len(np.unique(shifts[:, 0, 0, 0].round(3))) == 4


def test_evaluation_is_not_shifted():
    split = datasets.load("cifar10_sample").train
    components = colour_statistics.components(colour_statistics.of_split(split))
    images = jnp.asarray(split.images[:8])
    shifted = Augment(colour=ColourShift(0.1, components))
    np.testing.assert_array_equal(shifted.evaluate(images), Augment().evaluate(images))
    how = {"run_key": jax.random.key(0), "index": jnp.arange(8), "epoch": jnp.int32(0)}
    trained = shifted.train(images, key=jax.random.key(1), **how)
    assert np.abs(trained - shifted.evaluate(images)).max((1, 2, 3)).min() > 0
