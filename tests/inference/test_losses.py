"""Losses against NumPy and by hand; their gradients are finite and right everywhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.inference import losses
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

NETWORK = random(
    VGG("conv3-4 conv3-4 | conv3-6 |", 5, head="compact", conv="lax"),
    "imagenet",
    size=8,
)
KEYS = jax.random.split(jax.random.key(0))
X, Y = (jax.random.uniform(key, (2, 8, 8, 3)) for key in KEYS)
perceptual = partial(
    losses.perceptual_loss,
    NETWORK,
    value_range=(0, 1),
    content=("relu2_1",),
    style=("relu1_1", "relu1_2"),
    random_weights=True,
)


def numpy_gram(a):  # Johnson et al., equation 3, as sums over pixels
    _, height, width, channels = a.shape
    return np.einsum("bhwc,bhwd->bcd", a, a) / (channels * height * width)


def test_gram_is_the_papers():
    a = np.asarray(jax.random.normal(KEYS[0], (2, 3, 5, 4)))
    np.testing.assert_allclose(losses.gram(a), numpy_gram(a), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="no pixels to sum over"):
        losses.gram(jnp.zeros((2, 4)))


def test_style_is_twenty_times_gatys():
    """Equations 4 and 5 of Gatys et al., weights 1/5 of five layers."""
    shapes = {f"layer{i}": (1, 4, 4, 3 + i) for i in range(5)}
    rng = np.random.default_rng(0)
    found, target = (
        {
            name: rng.normal(size=shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        for _ in range(2)
    )
    gatys = 0.0
    for name, (_, height, width, channels) in shapes.items():
        pixels = height * width
        f, p = (a[name].reshape(pixels, channels).T for a in (found, target))
        error = ((f @ f.T - p @ p.T) ** 2).sum()
        gatys += error / (4 * channels**2 * pixels**2) / 5
    np.testing.assert_allclose(
        losses.style_loss(found, target), [20 * gatys], rtol=1e-4
    )


def test_content_is_two_gatys_per_value():
    """Equation 1 of Gatys et al.: half the sum of squares."""
    f, p = (np.asarray(jax.random.normal(key, (2, 3, 3, 4))) for key in KEYS)
    gatys = ((f - p) ** 2).sum((1, 2, 3)) / 2
    found = losses.content_loss({"conv4_2": f}, {"conv4_2": p})
    np.testing.assert_allclose(found, 2 * gatys / 36, rtol=1e-5)


def test_total_variation_is_tensorflows():
    """tf.image.total_variation: the sum of |x[i + 1] - x[i]| along both axes."""
    x = np.asarray(X)
    expected = np.abs(x[:, 1:] - x[:, :-1]).sum((1, 2, 3))
    expected += np.abs(x[:, :, 1:] - x[:, :, :-1]).sum((1, 2, 3))
    np.testing.assert_allclose(losses.total_variation(X), expected, rtol=1e-5)


def test_equal_images_cost_nothing_and_have_no_gradient():
    assert not perceptual(X, X).any()
    gradient = jax.jit(jax.grad(lambda x: perceptual(x, X).sum()))(X)
    assert not gradient.any()
    flat = jnp.zeros((1, 4, 4, 3))
    assert not jax.grad(lambda x: losses.total_variation(x).sum())(flat).any()


def test_the_gradient_is_the_slope():
    total = jax.jit(lambda x: perceptual(x, Y).sum())
    direction = jax.random.normal(KEYS[0], X.shape)
    gradient = jax.jit(jax.grad(total))(X)
    step = 1e-2 * direction
    slope = (total(X + step) - total(X - step)) / 2e-2
    np.testing.assert_allclose(slope, jnp.vdot(gradient, direction), rtol=2e-2)


def test_each_image_has_its_own_loss_and_weights_multiply():
    loss = perceptual(X, Y)
    assert loss.shape == (2,) and loss.dtype == jnp.float32
    np.testing.assert_allclose(perceptual(X[:1], Y[:1]), loss[:1], rtol=1e-5)
    content = perceptual(X, Y, style=())
    np.testing.assert_allclose(
        perceptual(X, Y, content_weight=2.0, style_weight=3.0),
        2 * content + 3 * (loss - content),
        rtol=1e-4,
    )


def test_targets_are_constants():
    assert not jax.grad(lambda y: perceptual(X, y).sum())(Y).any()


@pytest.mark.parametrize(
    "found, target, message",
    [
        ({"a": X}, {"b": X}, "must be of the same layers"),
        ({"a": X}, {"a": X[:, :4]}, "must be of one size"),
    ],
)
def test_activations_that_do_not_belong_together(found, target, message):
    with pytest.raises(ConfigError, match=message):
        losses.content_loss(found, target)


def test_random_weights_are_refused_unless_they_are_asked_for():
    with pytest.raises(ConfigError, match=r"conv1_1 \(3 of 3 layers\) are random"):
        perceptual(X, Y, random_weights=False)
    loaded = NETWORK.replace(random_layers=("fc8",))  # a new head is not looked at
    losses.perceptual_loss(loaded, X, Y, value_range=(0, 1), content=("relu2_1",))
