"""The whitening first layer."""

import math
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.data import datasets
from vgg_jax.errors import ConfigError
from vgg_jax.nn import whitening
from vgg_jax.nn.vgg import VGG

VARIANT = "conv3-54 conv3-8 | conv3-8 |"


@pytest.fixture(scope="module")
def images():
    return datasets.load("cifar10_sample").train.images[:500] / np.float32(255) - 0.5


def test_responses_are_white(images):
    """The first half of the filters turns patches into uncorrelated unit variances.

    Up to the epsilon, which damps directions of little variance.
    """
    w = jnp.asarray(whitening.filters([images], 3))
    assert w.shape == (3, 3, 3, 54) and w.dtype == jnp.float32
    y = jax.lax.conv_general_dilated(
        images, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = np.asarray(y, np.float64).reshape(-1, 54)
    second = y.T @ y / len(y)
    strong = np.diag(second)[:27] > 0.9
    assert strong.sum() >= 6
    block = second[:27, :27][np.ix_(strong, strong)]
    np.testing.assert_allclose(block - np.diag(np.diag(block)), 0, atol=0.01)
    assert (np.diag(second) < 1.01).all()
    np.testing.assert_allclose(y[:, 27:], -y[:, :27], atol=1e-4)


def at_once(images, kernel):
    """The formula of version 0.1, over all patches at once."""
    view = np.lib.stride_tricks.sliding_window_view
    patches = view(np.asarray(images, np.float32), (kernel, kernel), axis=(1, 2))
    count, size = math.prod(patches.shape[:3]), math.prod(patches.shape[3:])
    patches = patches.reshape(count, size).astype(np.float64)
    variances, directions = np.linalg.eigh(patches.T @ patches / count)
    scaled = directions / np.sqrt(variances + 5e-4)
    scaled = scaled.reshape(3, kernel, kernel, size).transpose(1, 2, 0, 3)
    return np.concatenate([scaled, -scaled], -1).astype(np.float32)


@pytest.mark.parametrize("kernel", [2, 3])
def test_pieces_add_up(kernel, images, monkeypatch):
    monkeypatch.setattr(whitening, "_CHUNK_BYTES", 7 * 30 * 30 * 27 * 8)
    batches = [images[:100], images[100:101], images[101:]]
    got, want = whitening.filters(batches, kernel), at_once(images, kernel)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_memory_does_not_grow_with_the_images(images):
    """At 64 px, 300 images at once took 374 MB; now a chunk and its copies are left."""
    larger = images[:300].repeat(2, 1).repeat(2, 2)
    tracemalloc.start()
    try:
        whitening.filters([larger], 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6


def test_the_kernel_is_set(images):
    model = VGG(variant=VARIANT, num_classes=10, head="compact", whiten=True)
    params = jax.jit(model.init)(jax.random.key(0), images[:2])["params"]
    bias = params["conv1_1"]["bias"]
    params = whitening.set_first(params, [images])
    kernel = params["conv1_1"]["kernel"]
    np.testing.assert_array_equal(kernel, whitening.filters([images], 3))
    assert params["conv1_1"]["bias"] is bias and "bn1_1" not in params


def test_a_wrong_width_is_told(images):
    model = VGG(variant="conv3-64 |", num_classes=10, head="compact", whiten=True)
    params = jax.jit(model.init)(jax.random.key(0), images[:2])["params"]
    with pytest.raises(ConfigError, match="needs 54 channels.*not 64"):
        whitening.set_first(params, [images])
