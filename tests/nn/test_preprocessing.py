"""Size, range and statistics of images, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.nn import preprocessing


def noise(*shape, seed=0):
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, shape, dtype=np.uint8)


def bilinear(images, size):
    """tf.image.resize without antialias: half-pixel centres, clamped at the edge."""
    for axis in (1, 2):
        length = images.shape[axis]
        at = (np.arange(size) + 0.5) * length / size - 0.5
        low = np.floor(at).astype(int)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        share = (at - low).reshape(shape)
        first, second = (
            np.take(images, np.clip(i, 0, length - 1), axis) for i in (low, low + 1)
        )
        images = first * (1 - share) + second * share
    return images


@pytest.mark.parametrize(
    "height, width, size", [(32, 32, 224), (32, 32, 20), (5, 9, 7)]
)
def test_resize_equals_tensorflow(height, width, size):
    images = noise(2, height, width, 3)
    got = preprocessing.resize(jnp.asarray(images), size)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, bilinear(images.astype(float), size), atol=1e-2)


def test_resize_leaves_the_size_alone():
    images = jnp.asarray(noise(2, 8, 8, 3))
    assert (
        preprocessing.resize(images, 0) is images
        and preprocessing.resize(images, 8) is images
    )


# docs/facts.md sections 5 (CIFAR-10) and 3 (torchvision): mean and std, 0 ... 255.
@pytest.mark.parametrize(
    "statistics, mean, std",
    [
        ("unit", [0.0], [255.0]),
        ("symmetric", [127.5], [127.5]),
        (
            "cifar10",
            [125.30691805, 122.95039414, 113.86538318],
            [62.99321928, 62.08870764, 66.70489964],
        ),
        (
            "imagenet",
            [255 * 0.485, 255 * 0.456, 255 * 0.406],
            [255 * 0.229, 255 * 0.224, 255 * 0.225],
        ),
    ],
)
def test_statistics(statistics, mean, std):
    images = noise(2, 4, 4, 3)
    got = preprocessing.normalize(jnp.asarray(images), statistics)
    want = (images - np.array(mean)) / std
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_no_statistics_are_left_out():
    names = {"unit", "symmetric", "cifar10", "imagenet", "keras"}
    assert set(preprocessing.PREPROCESSING) == names


PIXELS = [[0, 0, 0], [255, 255, 255], [10, 120, 250]]  # RGB
# What programs make of them: lpips 0.1.4, `LPIPS.scaling_layer(2 * PIXELS / 255 - 1)`,
# before torchvision's trunk; Keras 3.15.1, `vgg16.preprocess_input(PIXELS)`.
PEERS = {
    "imagenet": [
        [-2.117904, -2.035714, -1.804444],
        [2.248908, 2.428571, 2.64],
        [-1.946656, 0.065126, 2.552854],
    ],
    "keras": [
        [-103.939, -116.779, -123.68],
        [151.061, 138.221, 131.32],
        [146.061, 3.221, -113.68],
    ],
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1), (0, 255), None])
def test_a_network_sees_what_other_programs_show_it(name, value_range):
    images = jnp.asarray(PIXELS, jnp.uint8)[None, None]
    if value_range:
        low, high = value_range
        images = images.astype(jnp.float32) / 255 * (high - low) + low
    wanted = preprocessing.PREPROCESSING[name]
    seen = preprocessing.network_input(images, wanted, value_range)
    assert seen.dtype == jnp.float32
    np.testing.assert_allclose(seen[0, 0], PEERS[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("statistics", ["cifar10", "imagenet"])
def test_wrong_number_of_channels(statistics):
    grey = jnp.zeros((2, 8, 8, 1), jnp.uint8)
    with pytest.raises(ConfigError, match="3 channels.* have 1.*'unit'"):
        preprocessing.normalize(grey, statistics)
    assert preprocessing.normalize(grey, "unit").shape == grey.shape
