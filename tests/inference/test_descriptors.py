"""Descriptors against a loop over crops, with Pillow's scaling and NumPy's sums."""

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.inference.descriptors import descriptors
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

SIDE, STRIDE = 28, 4  # of the images of training; between windows of two pools


@pytest.fixture(scope="module")
def network():
    """Its convolutions pad nothing, so a crop of the image is a crop of the map."""
    model = VGG("conv1-8 | conv1-16 |", 5, hidden=(12, 9), conv="lax")
    return random(model, "imagenet", size=SIDE)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 50, 40, 3), np.uint8)


def scaled(image, scale):
    """`[H, W, 3]` with the smaller side `scale`, by Pillow in floating point."""
    height, width = image.shape[:2]
    size = [int(scale * side / min(height, width)) for side in (width, height)]
    bands = [
        PIL.Image.fromarray(band.astype(np.float32)).resize(size, PIL.Image.BILINEAR)
        for band in np.moveaxis(image, 2, 0)
    ]
    return np.stack(bands, 2)


def crops(image):
    height, width = image.shape[:2]
    for top in range(0, height - SIDE + 1, STRIDE):
        for left in range(0, width - SIDE + 1, STRIDE):
            yield image[top : top + SIDE, left : left + SIDE]


def by_hand(network, images, scales, flip, combine):
    rows = []
    for image in images:
        at_scales = []
        for scale in scales:
            shown = scaled(image, scale)
            views = [shown, np.flip(shown, 1)] if flip else [shown]
            seen = np.stack([crop for view in views for crop in crops(view)])
            found = network.activations(seen, ("relu7",), value_range=(0, 255))
            at_scales.append(np.asarray(found["relu7"]).mean(0))
        row = np.mean(at_scales, 0) if combine == "average" else np.ravel(at_scales)
        rows.append(row / np.sqrt(np.sum(row**2)))
    return np.stack(rows)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("combine", ["average", "stack"])
@pytest.mark.parametrize("scales", [(28, 52), (33,)])
def test_they_are_averages_over_crops_scales_and_mirror_image(
    network, images, scales, flip, combine
):
    """Larger and smaller than the image's 40 pixels."""
    got = descriptors(
        network,
        images,
        scales=scales,
        flip=flip,
        combine=combine,
        random_weights=True,
    )
    want = by_hand(network, images, scales, flip, combine)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_a_mirror_image_has_the_same_descriptor(network, images):
    one, other = (
        descriptors(network, x, scales=(40,), random_weights=True)
        for x in (images, images[:, :, ::-1])
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_compact_head_is_described_by_a_layer_of_its_body(images):
    model = VGG("conv3-8 | conv3-16 |", 5, head="compact", conv="lax")
    network = random(model, "cifar10")
    got = descriptors(
        network, images, layer="pool2", scales=(40,), flip=False, random_weights=True
    )
    want = network.activations(images, ("pool2",))["pool2"].mean((1, 2))
    want = want / np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_no_activation_is_no_division_by_zero(network, images):
    params = {**network.variables["params"]}
    params["fc7"] = {
        "kernel": jnp.zeros_like(params["fc7"]["kernel"]),
        "bias": -jnp.ones_like(params["fc7"]["bias"]),
    }
    dead = network.replace(variables={"params": params})
    got = descriptors(dead, images, scales=(40,), random_weights=True)
    np.testing.assert_array_equal(got, np.zeros((2, 9)))


def test_random_weights_must_be_asked_for(network, images):
    """But only of layers that the descriptor needs."""
    with pytest.raises(ConfigError, match="random_weights=True"):
        descriptors(network, images, scales=(40,))
    loaded = network.replace(random_layers=("fc8",))
    assert descriptors(loaded, images, scales=(40,)).shape == (2, 9)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"layer": "relu9"}, "layer='relu9' is unknown in configuration"),
        ({"scales": ()}, r"scales=\(\) is out of range"),
        ({"scales": 64}, "scales=64 must be a tuple of whole numbers"),
        ({"scales": (True,)}, r"scales=\(True,\) must be a tuple"),
        (
            {"scales": (40, 40.5)},
            r"scales=\(40, 40.5\) must be a tuple of whole numbers",
        ),
        ({"scales": (27,)}, "27 give maps of .* need at least 28x28"),
        ({"scales": (2,)}, "too small"),
        ({"combine": "max"}, "combine='max' is unknown"),
        ({"value_range": (0, 1)}, "leave it out"),
    ],
)
def test_wrong_use(network, images, wrong, message):
    with pytest.raises(ConfigError, match=message):
        descriptors(
            network, images, **{"scales": (40,), "random_weights": True, **wrong}
        )
