"""Random crops of scaled images on the device, against Pillow's on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vgg_jax.data.framing import Frame
from vgg_jax.training import scaled_crop
from vgg_jax.training.augment import Augment

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3)).astype(np.uint8)


@pytest.mark.parametrize("least, most", [(24, 31), (36, 72)])
def test_they_are_those_of_framing(least, most):
    """Made smaller and larger, to the rounding of Pillow's two passes."""
    random = np.random.default_rng(1)
    scale = random.integers(least, most + 1, 40)
    place = random.random((40, 2), np.float32)
    cut = jax.jit(scaled_crop.cut, static_argnums=2)
    got = np.asarray(cut(PIXELS, jnp.asarray(scale), 24, jnp.asarray(place)))
    for image, pixels, s, (down, across) in zip(got, PIXELS, scale, place, strict=True):
        frame = Frame(int(s), 24, float(across), float(down))
        wanted = np.asarray(frame.cut(PIL.Image.fromarray(pixels)))
        assert np.abs(image - wanted).max() <= 1.02


def test_the_centre_at_the_same_size_is_the_image():
    square = PIXELS[:, :, :32]
    np.testing.assert_allclose(scaled_crop.central(square, 32, 32), square, atol=1e-3)


def test_scales_are_uniform_and_places_reach_the_edges():
    """A ramp from 0 to 1 across the image says where a crop is and how large."""
    ramp = jnp.broadcast_to(
        jnp.arange(32.0)[None, None, :, None] / 31, (2000, 32, 32, 1)
    )
    key = jax.random.key(3)
    got = jax.jit(scaled_crop.random, static_argnums=(2, 3))(key, ramp, (32, 64), 32)
    row = np.asarray(got)[:, 16, :, 0]
    rise = (row[:, 24] - row[:, 8]) / 16  # per pixel, away from the edges
    scale = 32 / (31 * rise)
    assert 31.5 < scale.min() < 33 and 63 < scale.max() < 64.5
    assert abs(scale.mean() - 48) < 1.1  # 5 standard errors of a uniform
    assert row[:, 0].min() == 0 and row[:, -1].max() == 1


def test_training_sees_crops_and_evaluation_the_centre_of_the_middle_scale():
    augment = Augment(scales=(36, 72), resize=32, normalize="unit")
    square = jnp.asarray(PIXELS[:, :, :32])
    seen = augment.evaluate(square)
    wanted = scaled_crop.central(square, 54, 32) / 255
    np.testing.assert_allclose(seen, wanted, atol=1e-6)
    how = {"run_key": jax.random.key(0), "index": jnp.arange(40), "epoch": jnp.int32(0)}
    crops = augment.train(square, key=jax.random.key(1), **how)
    assert crops.shape == seen.shape == (40, 32, 32, 3)
    assert np.abs(crops - seen).max((1, 2, 3)).min() > 0.1
