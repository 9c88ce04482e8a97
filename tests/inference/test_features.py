"""Features under every transformation of JAX, and what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from vgg_jax.errors import ConfigError
from vgg_jax.inference.features import features
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

TABLE = "conv3-4 conv3-4 | conv3-6 conv3-6 |"
NETWORK = random(VGG(TABLE, 5, head="compact", conv="lax"), "imagenet", size=8)
LAYERS = ("relu1_2", "relu2_1")
IMAGES = jax.random.uniform(jax.random.key(1), (3, 8, 10, 3))
unit = partial(features, value_range=(0, 1))


def test_they_are_what_the_module_sows():
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    run = partial(NETWORK.model.apply, NETWORK.variables, mutable=["intermediates"])
    sown = run((np.asarray(IMAGES) - mean) / std)[1]["intermediates"]["activations"]
    found = unit(NETWORK, IMAGES, LAYERS)
    assert list(found) == list(LAYERS)
    for name, activation in found.items():
        np.testing.assert_allclose(activation, sown[name][0], rtol=1e-5, atol=1e-6)


def primitives(jaxpr):
    """Names of all operations of a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parametrize(
    "layers, convolutions, pooled", [(("relu1_1",), 1, False), (LAYERS, 3, True)]
)
def test_nothing_is_computed_after_the_last_layer(layers, convolutions, pooled):
    program = jax.make_jaxpr(lambda x: unit(NETWORK, x, layers))(IMAGES)
    names = list(primitives(program.jaxpr))
    assert names.count("conv_general_dilated") == convolutions
    assert ("slice" in names) == pooled  # the pool takes every other row
    assert "dot_general" not in names


def test_the_same_image_in_every_range():
    expected = unit(NETWORK, IMAGES, LAYERS)["relu2_1"]
    whole = jnp.round(IMAGES * 255)
    for images, value_range in (
        (IMAGES * 2 - 1, (-1, 1)),
        (IMAGES * 255, (0, 255)),
        (IMAGES.astype(jnp.float32), (0, 1)),
    ):
        found = features(NETWORK, images, LAYERS, value_range=value_range)["relu2_1"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    byte = features(NETWORK, whole.astype(jnp.uint8), LAYERS)["relu2_1"]
    exact = unit(NETWORK, whole / 255, LAYERS)["relu2_1"]
    np.testing.assert_allclose(byte, exact, rtol=1e-4, atol=1e-5)


def loss(network, images):
    return sum(jnp.square(a).sum() for a in unit(network, images, LAYERS).values())


def test_jit_and_vmap_agree_with_plain_calls():
    plain = unit(NETWORK, IMAGES, LAYERS)
    jitted = jax.jit(lambda n, x: unit(n, x, LAYERS))(NETWORK, IMAGES)
    mapped = jax.vmap(lambda x: unit(NETWORK, x[None], LAYERS))(IMAGES)
    for name in LAYERS:
        np.testing.assert_allclose(jitted[name], plain[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            mapped[name][:, 0], plain[name], rtol=1e-5, atol=1e-5
        )


def test_stop_gradient():
    def total(images):
        found = unit(NETWORK, images, LAYERS, stop_gradient=True)
        return found["relu2_1"].sum()

    assert not jax.grad(total)(IMAGES).any()


@pytest.mark.slow
def test_forward_mode_and_second_derivatives():
    push = jnp.ones_like(IMAGES)
    gradient = jax.grad(loss, 1)
    value, slope = jax.jvp(partial(loss, NETWORK), (IMAGES,), (push,))
    np.testing.assert_allclose(
        slope, jnp.vdot(gradient(NETWORK, IMAGES), push), rtol=1e-4
    )
    _, curvature = jax.jvp(partial(gradient, NETWORK), (IMAGES,), (push,))
    assert jnp.isfinite(curvature).all() and value > 0
    fast = NETWORK.configured(conv="auto")
    with pytest.raises(ConfigError, match="forward mode.*build the network with conv="):
        jax.jvp(partial(loss, fast), (IMAGES,), (push,))


def test_bfloat16_and_average_pooling():
    found = unit(NETWORK.configured(dtype=jnp.bfloat16), IMAGES, ["relu2_1"])["relu2_1"]
    assert found.dtype == jnp.bfloat16
    exact = unit(NETWORK, IMAGES, ["relu2_1"])["relu2_1"]
    difference = jnp.abs(found.astype(jnp.float32) - exact).max()
    assert 0 < difference < 0.05 * exact.max()
    averaged = unit(NETWORK.configured(pool="average"), IMAGES, ["relu1_2", "pool1"])
    blocks = averaged["relu1_2"].reshape(3, 4, 2, 5, 2, 4).mean((2, 4))
    np.testing.assert_allclose(averaged["pool1"], blocks, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_images_need_be_large_enough_for_the_last_layer_only():
    """Pools that come after it do not count: relu5_3 of VGG-16 has four before it."""
    small = random(VGG("D", 5, width=0.0625, head="compact"), "imagenet", size=32)
    see = lambda side, layer: jax.eval_shape(
        lambda x: unit(small, x, [layer]), jnp.zeros((1, side, side, 3))
    )
    assert see(1, "relu1_2")["relu1_2"].shape == (1, 1, 1, 4)
    assert see(16, "relu5_3")["relu5_3"].shape == (1, 1, 1, 32)
    with pytest.raises(
        ConfigError, match="halves them 4 times and needs at least 16x16"
    ):
        see(15, "relu5_3")


@pytest.mark.parametrize("value, said", [(1.5, "1.5"), (jnp.nan, "nan")])
def test_a_checked_program_reports_values_out_of_range(value, said):
    program = jax.jit(lambda x: unit(NETWORK, x, LAYERS))
    bad = IMAGES.at[0, 0, 0, 0].set(value)
    program(bad)  # not looked at
    error, _ = checkify.checkify(program)(bad)
    assert "outside of value_range=(0, 1), or NaN" in error.get()
    assert said in error.get()
    error, _ = checkify.checkify(program)(IMAGES)
    assert error.get() is None


@pytest.mark.parametrize("at", [0, 3000, -1])
def test_a_single_nan_in_a_large_image(at):
    """XLA's minimum on CPU loses it there (`preprocessing._extremes`)."""
    pixels = np.full(32 * 64 * 3, 0.5, np.float32)
    pixels[at] = np.nan
    images = pixels.reshape(1, 32, 64, 3)
    with pytest.raises(ConfigError, match="hold NaN"):
        unit(NETWORK, images, LAYERS)
    program = jax.jit(lambda x: unit(NETWORK, x, LAYERS))
    error, _ = checkify.checkify(program)(images)
    assert "or NaN: from nan to nan" in error.get()
