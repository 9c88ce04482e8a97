"""Random crops of scaled images on the device, against Pillow's on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vgg_jax.data.boxes import in_window
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
    random = jax.jit(
        scaled_crop.random,
        static_argnums=(2, 3),
        compiler_options={"xla_backend_optimization_level": 3},  # to the last bit
    )
    got = random(key, ramp, (32, 64), 32)
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


def test_windows_say_what_of_the_image_is_cut():
    """A white square on black: its box in the window is where the crop is white."""
    square = np.float32([0.5, 0.375, 0.5, 0.25])  # of 32 rows and 48 columns
    image = np.zeros((1, 32, 48, 3), np.float32)
    image[0, 8:16, 12:36] = 255
    random = np.random.default_rng(2)
    scale = jnp.asarray(random.integers(32, 97, 30))
    place = jnp.asarray(random.random((30, 2), np.float32))
    crops = scaled_crop.cut(jnp.asarray(image.repeat(30, 0)), scale, 32, place)
    windows = scaled_crop.windows((32, 48), scale, 32, place)
    boxes = 32 * np.asarray(in_window(jnp.asarray(square)[None], windows))
    for crop, box in zip(np.asarray(crops), boxes, strict=True):
        white = crop[..., 0] > 127.5
        edges = np.clip([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2], 0, 32)
        wanted = np.maximum(edges[1] - edges[0], 0)
        got = white.any(0).sum(), white.any(1).sum()
        if white.any():
            assert np.abs(got - wanted).max() <= 1.01
            assert abs(np.argmax(white.any(0)) - edges[0][0]) <= 1.01
            assert abs(np.argmax(white.any(1)) - edges[0][1]) <= 1.01
        else:
            assert wanted.min() < 1.01
