"""What a network sees of a program's images, beside what other programs show it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from jax.experimental import checkify

from vgg_jax.errors import ConfigError
from vgg_jax.nn.images import network_input
from vgg_jax.nn.preprocessing import PREPROCESSING

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
    wanted = PREPROCESSING[name]
    seen = network_input(images, wanted, value_range)
    assert seen.dtype == jnp.float32
    np.testing.assert_allclose(seen[0, 0], PEERS[name], rtol=1e-4, atol=1e-4)


GREY = jnp.full((2, 4, 4, 1), 0.5)


def total(images):
    return network_input(images, PREPROCESSING["unit"], (0, 1)).sum()


@pytest.mark.parametrize(
    "transformed",
    [
        jax.grad(total),
        jax.value_and_grad(total),
        lambda x: jax.hessian(total)(x[:1, :1]),
        lambda x: jax.jvp(total, (x,), (x,)),
        lambda x: jax.vjp(total, x),
    ],
    ids=["grad", "value_and_grad", "hessian", "jvp", "vjp"],
)
def test_values_are_checked_where_they_are_differentiated(transformed):
    transformed(GREY)
    with pytest.raises(ConfigError, match=r"from 127.5 to 127.5.* is it \(0, 255\)"):
        transformed(255 * GREY)


@pytest.mark.parametrize(
    "transformed",
    [jax.vmap(lambda x: total(x[None])), jax.jit(jax.grad(total)), jax.jit(total)],
    ids=["vmap", "jit of grad", "jit"],
)
def test_where_values_are_not_known_a_checked_program_reports_them(transformed):
    checked = checkify.checkify(transformed)
    assert checked(GREY)[0].get() is None
    said = str(checked(255 * GREY)[0].get())
    assert "outside of value_range=(0, 1), or NaN" in said


@pytest.mark.parametrize(
    "wrong", ["x.png", None, [np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], object()]
)
def test_what_is_no_array(wrong: Any):
    with pytest.raises(ConfigError, match="images must be one array"):
        network_input(wrong, PREPROCESSING["unit"], (0, 1))


def test_a_picture_of_pillow_is_one_image():
    picture: Any = PIL.Image.fromarray(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"images\[None\]"):
        network_input(picture, PREPROCESSING["unit"])


def test_a_word_is_no_range():
    word: Any = "01"
    with pytest.raises(ConfigError, match="'01' must be two numbers"):
        network_input(GREY, PREPROCESSING["unit"], word)


def test_a_grey_network_sees_grey_images():
    with pytest.raises(ConfigError, match="3 channels .* expects 1: .* to grey"):
        network_input(jnp.zeros((2, 8, 8, 3)), PREPROCESSING["unit"], (0, 1), 1)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((2, 3, 8, 8), r"images.transpose\(0, 2, 3, 1\)"),
        ((2, 8, 8, 1), "1 channels where the network expects 3"),
        ((2, 8, 8, 4), "4 channels where the network expects 3"),
    ],
)
def test_statistics_of_one_number_do_not_hide_the_channels(shape, message):
    with pytest.raises(ConfigError, match=message):
        network_input(jnp.zeros(shape), PREPROCESSING["unit"], (0, 1), channels=3)
