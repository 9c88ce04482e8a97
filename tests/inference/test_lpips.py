"""LPIPS against a few lines of NumPy that follow the authors' code."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.inference import lpips as module
from vgg_jax.inference.features import LAST_OF_STAGES, features
from vgg_jax.inference.lpips import load_heads, lpips
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

X, Y = (jax.random.uniform(jax.random.key(i), (2, 32, 32, 3)) for i in range(2))


@pytest.fixture(scope="module")
def network():
    model = VGG("D", 10, head="compact", conv="lax")
    return random(model, "imagenet", size=32)


def reference(network, x, y):
    """`lpips.LPIPS.forward` and `normalize_tensor`, version 0.1.4, in NumPy."""
    total = 0.0
    seen = jax.jit(partial(features, layers=LAST_OF_STAGES, value_range=(0, 1)))
    x, y = (seen(network, a) for a in (x, y))
    for layer, weight in zip(LAST_OF_STAGES, load_heads(), strict=True):
        a, b = (np.asarray(z[layer], np.float64) for z in (x, y))
        a, b = (z / (np.sqrt((z**2).sum(-1, keepdims=True)) + 1e-10) for z in (a, b))
        total += ((a - b) ** 2 * weight).sum(-1).mean((1, 2))
    return total


def test_it_is_the_authors_formula(network):
    compare = jax.jit(
        partial(lpips, random_weights=True), static_argnames="value_range"
    )
    found = compare(network, X, Y, value_range=(0, 1))
    assert found.shape == (2,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, reference(network, X, Y), rtol=1e-5)
    other = compare(network, 2 * X - 1, 2 * Y - 1, value_range=(-1, 1))
    np.testing.assert_allclose(other, found, rtol=1e-4)


def test_equal_images_are_at_distance_zero_with_gradient_zero(network):
    """Zero up to rounding: XLA may fuse the two halves differently."""
    black = jnp.zeros((1, 32, 32, 3))
    dead = jax.tree.map(jnp.zeros_like, network.variables)
    options = {"value_range": (0, 1), "random_weights": True}

    @jax.jit
    def value_and_gradient(network, x, y):
        total = lambda x: lpips(network, x, y, **options).sum()
        return jax.value_and_grad(total)(x)

    for variables, x in ((network.variables, X[:1]), (dead, black)):
        other = network.replace(variables=variables)
        value, gradient = value_and_gradient(other, x, x)
        assert value < 1e-12 and jnp.abs(gradient).max() < 1e-5


def test_the_direction_of_no_activation_is_none_and_its_slope_finite():
    x = jnp.asarray([[[[0.0, 0.0], [3.0, 4.0]]]])
    directions = module._directions(x)
    np.testing.assert_allclose(directions[0, 0], [[0, 0], [0.6, 0.8]], rtol=1e-6)
    slope = jax.grad(lambda x: (module._directions(x) * x).sum())(x)
    assert jnp.isfinite(slope).all()
    np.testing.assert_allclose(slope[0, 0, 1], [0.6, 0.8], rtol=1e-5)  # of |x|


def test_the_published_heads():
    """Sizes and extremes of lpips 0.1.4's weights/v0.1/vgg.pth, read by PyTorch."""
    extremes = {
        "relu1_2": (64, 0.021017654, 1.2828162),
        "relu2_2": (128, 0.009468972, 0.47568023),
        "relu3_3": (256, 0.037710946, 0.5065465),
        "relu4_3": (512, 0.039098237, 0.5872805),
        "relu5_3": (512, 0.019278834, 0.45843714),
    }
    heads = load_heads()._asdict()
    assert list(heads) == list(extremes)
    for name, (count, least, most) in extremes.items():
        assert heads[name].shape == (count,)
        assert heads[name].min() == np.float32(least)
        assert heads[name].max() == np.float32(most)


@pytest.mark.parametrize("change", ["fewer", "negative"])
def test_other_heads_are_refused(change, tmp_path):
    names = [f"lin{i}.model.1.weight" for i in range(5)]
    tensors = {
        name: weight.reshape(1, -1, 1, 1)
        for name, weight in zip(names, load_heads(), strict=True)
    }
    path = tmp_path / "heads.safetensors"
    save_file(tensors, path)
    for mine, theirs in zip(load_heads(path), load_heads(), strict=True):
        assert (mine == theirs).all()
    if change == "fewer":
        del tensors[names[4]]
    else:
        tensors[names[2]] = -tensors[names[2]]
    save_file(tensors, path)
    with pytest.raises(RunError, match="no LPIPS heads for VGG|negative weights"):
        load_heads(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"preprocessing": "keras"}, "preprocessing='keras', not 'imagenet'"),
        ({"variant": "E"}, "variant='E', not 'D'"),
        ({"batch_norm": True}, "batch_norm=True, not False"),
        ({"pool": "average"}, "pool='average', not 'max'"),
    ],
)
def test_another_network_is_refused(change, message):
    fields = {"variant": "D", "num_classes": 10, "head": "compact", "width": 1.0}
    preprocessing = change.pop("preprocessing", "imagenet")
    model = VGG(**(fields | change))
    network = random(VGG("conv3-4 |", 10, head="compact"), preprocessing)
    network = network.replace(model=model)  # its weights are not looked at
    with pytest.raises(ConfigError, match=message):
        lpips(network, X, Y, value_range=(0, 1), random_weights=True)


def test_random_weights_and_images_of_two_sizes_are_refused(network):
    with pytest.raises(ConfigError, match=r"conv1_1 \(13 of 13 layers\) are random"):
        lpips(network, X, Y, value_range=(0, 1))
    with pytest.raises(ConfigError, match="must be of one shape"):
        lpips(network, X, Y[:, :16], value_range=(0, 1), random_weights=True)
