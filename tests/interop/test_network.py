"""A network as one value: a pytree, checked, that computes no more than is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

TINY = VGG("conv3-4 | conv3-4 conv3-6 |", 5, hidden=(7,), head="adaptive", conv="lax")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 12, 14, 3), np.uint8)


def network(**options):
    return random(TINY, "imagenet", size=12, **options)


def test_logits_are_those_of_the_module_on_normalised_images():
    made = network()
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    seen = (IMAGES.astype(np.float32) / 255 - mean) / std
    expected = jax.jit(TINY.apply)(made.variables, seen)
    np.testing.assert_allclose(made(IMAGES), expected, rtol=1e-5, atol=1e-5)


def test_an_activation_under_its_own_and_under_foreign_names():
    made = network()
    found = made.activations(IMAGES, ("relu2_2", "block2_conv2", "features.6"))
    assert found["relu2_2"].shape == (2, 6, 7, 6)
    for name in ("block2_conv2", "features.6"):
        assert (found[name] == found["relu2_2"]).all()


def test_it_passes_through_jit_and_grad_as_a_pytree():
    made, images = network(), IMAGES.astype(np.float32) / 255

    @jax.jit
    def loss(network, images):
        return (network(images, value_range=(0, 1)) ** 2).sum()

    gradient = jax.grad(loss)(made, images)
    assert gradient.model == made.model
    assert jnp.abs(gradient.variables["params"]["conv1_1"]["kernel"]).max() > 0


def test_a_network_without_a_head_has_features_and_no_logits():
    made = network()
    params = {k: v for k, v in made.variables["params"].items() if "fc" not in k}
    headless = made.replace(variables={"params": params}, source="a.safetensors")
    expected = made.activations(IMAGES, ("pool2",))["pool2"]
    assert (headless.activations(IMAGES, ("pool2",))["pool2"] == expected).all()
    with pytest.raises(
        ConfigError, match=r"a.safetensors has no fc7, fc8.*num_classes"
    ):
        headless(IMAGES)


def test_only_what_keeps_the_weights_is_configured():
    made = network().configured(pool="average", dtype=jnp.bfloat16)
    found = made.activations(IMAGES, ("relu1_1", "pool1"))
    assert found["pool1"].dtype == jnp.bfloat16
    before = found["relu1_1"].astype(jnp.float32).reshape(2, 6, 2, 7, 2, 4)
    np.testing.assert_allclose(
        found["pool1"].astype(jnp.float32), before.mean((2, 4)), rtol=1e-2, atol=1e-2
    )
    with pytest.raises(ConfigError, match="width belongs to the weights"):
        network().configured(width=2.0)
    with pytest.raises(ConfigError, match="pool='mean' is unknown"):
        network().configured(pool="mean")


def test_random_weights_are_known_as_such():
    assert network().random_layers == ("conv1_1", "conv2_1", "conv2_2", "fc7", "fc8")
