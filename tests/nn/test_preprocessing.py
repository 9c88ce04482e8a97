"""Size, range and statistics of images, against NumPy."""

from typing import Any

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


@pytest.mark.parametrize("statistics", ["cifar10", "imagenet"])
def test_wrong_number_of_channels(statistics):
    grey = jnp.zeros((2, 8, 8, 1), jnp.uint8)
    with pytest.raises(ConfigError, match="3 channels.* have 1.*'unit'"):
        preprocessing.normalize(grey, statistics)
    assert preprocessing.normalize(grey, "unit").shape == grey.shape


@pytest.mark.parametrize(
    "fields, message",
    [
        (((123.7, 116.8, 103.9), (58.4, 57.1, 57.4)), "divide grey levels by 255"),
        (((0.5,), (58.4,)), r"std=\(58.4,\) must be numbers in units"),
        (((0.5,), (0.0,)), "std="),
        (((0.5,), (-0.5,)), "std="),
        (((float("nan"),), (0.5,)), "mean="),
        (((), ()), r"mean=\(\)"),
        (("123", "456"), "mean='123'"),
        ((0.5, 0.5), "mean=0.5 must be numbers"),
        (((0.5,) * 3, (0.5,) * 2), "must be as many numbers"),
        (((0.5,), (0.5,), "bgr"), "order='bgr' is unknown; choose one of: RGB, BGR"),
    ],
)
def test_statistics_that_are_none(fields, message):
    """Read from JSON, too."""
    with pytest.raises(ConfigError, match=message):
        preprocessing.Preprocessing(*fields)
    said: Any = dict(zip(("mean", "std", "order"), (*fields, "RGB"), strict=False))
    with pytest.raises(ConfigError, match=message):
        preprocessing.Preprocessing.from_json(said)


@pytest.mark.parametrize("wrong", [((0.5,), (0.5,)), {"mean": [0.5]}, "Imagenet", 3])
def test_what_is_no_preprocessing(wrong):
    with pytest.raises(ConfigError, match="unit, symmetric, cifar10, imagenet, keras"):
        preprocessing.named(wrong)


def test_lists_are_hashable_once_they_are_a_preprocessing():
    one = preprocessing.Preprocessing([0.5], [np.float32(0.25)])
    assert hash(one) == hash(preprocessing.Preprocessing((0.5,), (0.25,)))
    assert preprocessing.Preprocessing.from_json(one.to_json()) == one
