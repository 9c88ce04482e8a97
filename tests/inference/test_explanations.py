"""Explanations by their properties: where they point, what they add up to, by hand.

The networks are made for it: one whose answer depends on a corner, and random ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.inference import hooks
from vgg_jax.inference.channels import active_channels
from vgg_jax.inference.grad_cam import grad_cam
from vgg_jax.inference.guided_backprop import guided_backprop
from vgg_jax.inference.integrated_gradients import integrated_gradients
from vgg_jax.inference.inversion import Descent, invert, maximise
from vgg_jax.inference.occlusion import occlusion
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

SMALL = random(
    VGG("conv3-6 conv3-6 | conv3-8 |", 4, head="compact", conv="lax"), "cifar10"
)
NORMED = random(
    VGG(
        "conv3-6 | conv3-8 |",
        4,
        head="paper",
        hidden=(7,),
        batch_norm=True,
        conv="lax",
    ),
    "imagenet",
    size=16,
)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 16, 16, 3), np.uint8)


def test_a_network_of_another_size_is_told():
    with pytest.raises(ConfigError, match="images of 24x24 give fc7"):
        grad_cam(NORMED, np.zeros((1, 24, 24, 3), np.uint8))
    with pytest.raises(ConfigError, match="images of 24x24 give fc7"):
        invert(NORMED, np.zeros((1, 24, 24, 3), np.uint8), "fc8")
    with pytest.raises(ConfigError, match="is a str, not a Network"):
        grad_cam("runs/vgg16", IMAGES)  # pyright: ignore


def test_a_grey_network_is_explained():
    grey = random(VGG("conv3-6 | conv3-8 |", 4, head="compact"), "unit", channels=1)
    assert (
        maximise(grey, "conv2_1", 3, size=8, descent=Descent(steps=1)).images.shape[-1]
        == 1
    )
    with pytest.raises(ConfigError, match="3 channels where the network expects 1"):
        grad_cam(grey, IMAGES)


def corner_network():
    """Says class 1 by how bright the top left quarter of 16x16 pixels is.

    One channel copies the green of the image; `fc8` weights the places of the pooled
    map, 8x8: only those of the quarter count.
    """
    model = VGG("conv3-2 |", 2, head="paper", hidden=(), conv="lax")
    network = random(model, "unit", size=16)
    kernel = jnp.zeros((3, 3, 3, 2)).at[1, 1, 1, 0].set(1)
    places = jnp.zeros((8, 8, 2, 2)).at[:4, :4, 0, 1].set(1)
    params = {
        "conv1_1": {"kernel": kernel, "bias": jnp.zeros(2)},
        "fc8": {"kernel": places.reshape(-1, 2), "bias": jnp.zeros(2)},
    }
    return network.replace(variables={"params": params})


def share_in_corner(map):
    """Of the positive part of `[h, w]` that lies in the top left quarter."""
    height, width = map.shape
    positive = np.maximum(map, 0)
    return positive[: height // 2, : width // 2].sum() / positive.sum()


def uneven():
    """An image whose brightest places are outside of the corner that counts."""
    image = np.full((1, 16, 16, 3), 200, np.uint8)
    image[:, :8, :8] = 90
    return image


def test_grad_cam_weights_channels_by_their_mean_slope():
    """Equations 1 and 2 by hand, from the derivative that `fc8` states itself."""
    kernel = SMALL.variables["params"]["fc8"]["kernel"]  # [8, 4]
    seen = np.asarray(SMALL.activations(IMAGES, ("pool2",))["pool2"])
    weights = np.asarray(kernel)[:, 2] / (seen.shape[1] * seen.shape[2])
    expected = np.maximum((seen * weights).sum(-1), 0)
    found = grad_cam(SMALL, IMAGES, 2, layer="pool2")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_grad_cam_takes_the_mean_where_slopes_differ():
    """The rest of the network written out; where a maximum lies, slopes are not 0."""
    params = SMALL.variables["params"]
    seen = SMALL.activations(IMAGES, ("pool1",))["pool1"]

    def score(x):  # [B, 8, 8, 6] -> the sum of class 2's logits
        layer = params["conv2_1"]
        x = jax.lax.conv_general_dilated(
            x,
            layer["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jnp.maximum(x + layer["bias"][None, None, None], 0)
        x = x.reshape(-1, 4, 2, 4, 2, 8).max((2, 4)).mean((1, 2))
        return (x @ params["fc8"]["kernel"])[:, 2].sum()

    weights = np.asarray(jax.grad(score)(seen)).mean((1, 2), keepdims=True)
    expected = np.maximum((weights * np.asarray(seen)).sum(-1), 0)
    found = grad_cam(SMALL, IMAGES, 2, layer="pool1")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_maps_point_to_the_corner_that_the_answer_depends_on():
    """For Grad-CAM the image is bright there alone: it weights channels, not places."""
    network, image = corner_network(), np.zeros((1, 16, 16, 3), np.uint8)
    image[:, 1:7, 1:7] = 250
    cam = grad_cam(network, image, 1, layer="relu1_1")
    assert share_in_corner(np.asarray(cam[0])) > 0.99
    others = {
        "occlusion": occlusion(network, 255 - uneven() // 2, 1, patch=4, stride=2),
        "integrated": integrated_gradients(network, uneven(), 1).values.sum(-1),
        "guided": guided_backprop(network, uneven(), 1).sum(-1),
    }
    for name, found in others.items():
        if name == "occlusion":  # squares reach over the edge by less than their side
            assert np.asarray(found)[0, 12:, 12:].max() == 0
        assert share_in_corner(np.asarray(found[0])) > 0.7, name


def test_occlusion_is_what_covering_costs():
    """Against a loop of NumPy over the squares, with the network itself."""
    grey = np.float32(SMALL.preprocessing.mean)
    unit = IMAGES[:1].astype(np.float32) / 255
    sure = lambda x: jax.nn.softmax(SMALL(x, value_range=(0, 1)))[0, 3].item()
    falls, cover = np.zeros((16, 16)), np.zeros((16, 16))
    for top in (0, 5, 9):
        for left in (0, 5, 9):
            covered = unit.copy()
            covered[:, top : top + 7, left : left + 7] = grey
            falls[top : top + 7, left : left + 7] += sure(unit) - sure(covered)
            cover[top : top + 7, left : left + 7] += 1
    found = occlusion(SMALL, IMAGES[:1], 3, patch=7, stride=5)
    np.testing.assert_allclose(found[0], falls / cover, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("network", [SMALL, NORMED], ids=["small", "normed"])
def test_integrated_gradients_add_up(network):
    classes, grey = [0, 3, 2], np.full_like(IMAGES, 128)
    found = integrated_gradients(network, IMAGES, classes, baseline=grey, steps=256)
    logit = lambda x: np.asarray(network(x))[range(3), classes]
    np.testing.assert_allclose(
        found.difference, logit(IMAGES) - logit(grey), rtol=1e-3, atol=1e-5
    )
    sums = np.asarray(found.values).sum((1, 2, 3))
    np.testing.assert_allclose(sums, found.difference, rtol=0.01)
    assert (np.asarray(found.error) < 0.01).all()


def numpy_guided(network, image, number):
    """One convolution, its ReLU, a pool of the largest and `fc8`, by hand."""
    params = jax.tree.map(np.asarray, network.variables["params"])
    kernel = params["conv1_1"]["kernel"]  # [3, 3, C, K]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    seen = np.zeros((height, width, kernel.shape[3]))
    for i in range(3):
        for j in range(3):
            seen += padded[i : i + height, j : j + width] @ kernel[i, j]
    windows = np.maximum(seen, 0).reshape(height // 2, 2, width // 2, 2, -1)
    largest = windows.max((1, 3), keepdims=True)
    weights = params["fc8"]["kernel"][:, number] / (height * width / 4)
    slope = np.where(windows == largest, weights, 0).reshape(seen.shape)
    slope = np.where((seen > 0) & (slope > 0), slope, 0)  # the rule of the paper
    back = np.zeros(padded.shape)
    for i in range(3):
        for j in range(3):
            back[i : i + height, j : j + width] += slope @ kernel[i, j].T
    return back[1:-1, 1:-1]


def test_guided_backprop_is_the_papers():
    model = VGG("conv3-5 |", 3, head="compact", conv="lax")
    network = random(model, "unit", seed=3)
    image = RNG.random((6, 8, 3)).astype(np.float32)
    found = guided_backprop(network, image[None], 1, value_range=(0, 1))
    expected = numpy_guided(network, image, 1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)
    plain = jax.grad(lambda x: network(x, value_range=(0, 1))[0, 1])(image[None])
    assert abs(plain[0] - expected).max() > 1e-3, "the rule changes nothing here"


def test_guided_backprop_is_zero_where_nothing_excites():
    """All weights of the class are negative: no way back is left."""
    params = SMALL.variables["params"]
    head = {**params["fc8"], "kernel": -abs(params["fc8"]["kernel"])}
    silent = SMALL.replace(variables={"params": {**params, "fc8": head}})
    assert not np.asarray(guided_backprop(silent, IMAGES, 1)).any()
    assert np.asarray(guided_backprop(SMALL, IMAGES, 1)).any()


def test_active_channels_are_those_of_the_largest_mean():
    seen = np.asarray(SMALL.activations(IMAGES, ("relu2_1",))["relu2_1"])
    found = active_channels(SMALL, IMAGES, "relu2_1", count=3)
    order = np.argsort(-seen.mean((1, 2)), axis=1)[:, :3]
    np.testing.assert_array_equal(found.numbers, order)
    for image in range(3):
        expected = np.moveaxis(seen[image][..., order[image]], -1, 0)
        np.testing.assert_allclose(found.maps[image], expected, rtol=1e-6)


METHODS = {
    "grad_cam": lambda network, x: grad_cam(network, x, layer="relu1_1"),
    "guided_backprop": guided_backprop,
    "occlusion": lambda network, x: occlusion(network, x, patch=8, stride=8),
    "integrated": lambda network, x: integrated_gradients(network, x, steps=16).values,
    "channels": lambda network, x: active_channels(network, x, "relu1_1", count=2).maps,
}


@pytest.mark.parametrize("name", METHODS)
def test_an_image_is_explained_alone_in_a_batch_and_under_jit(name):
    method = METHODS[name]
    batch = np.asarray(jax.jit(method)(NORMED, IMAGES))
    alone = np.concatenate([method(NORMED, IMAGES[i : i + 1]) for i in range(3)])
    assert batch.dtype == np.float32 and np.isfinite(batch).all()
    scale = abs(alone).max()
    np.testing.assert_allclose(batch / scale, alone / scale, atol=1e-4)


@pytest.mark.slow
def test_inversion_comes_nearer_and_excitation_grows():
    quick = Descent(steps=25, smooth=0.1)
    found = invert(SMALL, IMAGES[:2], "relu1_2", descent=quick)
    features = lambda x: np.asarray(hooks.run(SMALL, x, hooks.unchanged, "relu1_2"))
    wanted = features(jnp.asarray(IMAGES[:2] / np.float32(255)))
    gaps = ((features(found.images) - wanted) ** 2).sum((1, 2, 3))
    share = gaps / (wanted**2).sum((1, 2, 3))
    np.testing.assert_allclose(found.after, share, rtol=1e-3)
    assert (found.after < 0.5 * found.before).all()
    for network, layer in ((SMALL, "relu2_1"), (NORMED, "fc8")):
        excited = maximise(network, layer, 1, size=16, descent=quick)
        assert (excited.after > excited.before + 0.01).all(), layer
        assert ((excited.images >= 0) & (excited.images <= 1)).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: grad_cam(SMALL, IMAGES, 4), "class 4 is not one of the 4"),
        (lambda: grad_cam(SMALL, IMAGES, [0, 1]), "one for each of the 3 images"),
        (lambda: grad_cam(NORMED, IMAGES, layer="relu7"), "no map: .* as relu2_1"),
        (lambda: occlusion(SMALL, IMAGES, patch=20), "patch=20 and stride=5"),
        (lambda: integrated_gradients(SMALL, IMAGES, steps=0), "steps=0"),
        (lambda: active_channels(SMALL, IMAGES, count=99), "relu2_1 has 8 channels"),
        (lambda: maximise(SMALL, "relu2_1", 8), r"channel=8 .* in \[0, 8\)"),
        (lambda: invert(SMALL, IMAGES, "relu9_9"), "did you mean"),
        (lambda: guided_backprop(SMALL, IMAGES / 255.0), "must come with value_range"),
    ],
)
def test_wrong_uses_are_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
