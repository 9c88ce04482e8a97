"""The whitening first layer."""

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
    w = jnp.asarray(whitening.filters(images, 3))
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


def test_the_kernel_is_set(images):
    model = VGG(variant=VARIANT, num_classes=10, head="compact", whiten=True)
    params = jax.jit(model.init)(jax.random.key(0), images[:2])["params"]
    bias = params["conv1_1"]["bias"]
    params = whitening.set_first(params, images)
    kernel = params["conv1_1"]["kernel"]
    np.testing.assert_array_equal(kernel, whitening.filters(images, 3))
    assert params["conv1_1"]["bias"] is bias and "bn1_1" not in params


def test_a_wrong_width_is_told(images):
    model = VGG(variant="conv3-64 |", num_classes=10, head="compact", whiten=True)
    params = jax.jit(model.init)(jax.random.key(0), images[:2])["params"]
    with pytest.raises(ConfigError, match="needs 54 channels.*not 64"):
        whitening.set_first(params, images)
