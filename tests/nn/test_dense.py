"""The network as convolutions against the ordinary network, window by window."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.nn.dense import activation_map, class_scores
from vgg_jax.nn.vgg import VGG

HEADS = ("paper", "adaptive", "compact")
LAYERS = {"paper": ("pool2", "relu6", "fc8"), "adaptive": ("fc8",), "compact": ("fc8",)}
POINTWISE = "conv1-8 | conv1-16 |"  # no padding: a crop of pixels is a crop of the map


compiled_map = jax.jit(activation_map, static_argnums=(0, 3))


def network(head, size, variant=POINTWISE, **fields):
    hidden = {} if head == "compact" else {"hidden": (12, 9), "dropout": 0.5}
    model = VGG(variant, 5, head=head, **({"conv": "lax"} | hidden | fields))
    images = jax.random.normal(jax.random.key(1), (2, *size, 3))
    return model, filled(model, images), images


def filled(model, images):
    """Weights by NumPy, which need no compiling; no bias, shift or mean is 0."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    random = np.random.default_rng(0)

    def fill(leaf):
        if leaf.ndim == 1:
            return random.uniform(0.1, 0.5, leaf.shape).astype(np.float32)
        scale = math.sqrt(2 / math.prod(leaf.shape[:-1]))
        return random.normal(0, scale, leaf.shape).astype(np.float32)

    kept = {k: v for k, v in shapes.items() if k in ("params", "batch_stats")}
    return jax.tree.map(fill, kept)


@pytest.mark.parametrize("head", HEADS)
def test_at_the_size_of_training_it_is_the_network(head):
    variant = "conv3-8 | conv3-16 LRN |"
    model, variables, images = network(head, (28, 28), variant, logit_scale=0.5)
    for last in LAYERS[head]:
        got = compiled_map(model, variables, images, last)
        want = jax.jit(partial(model.apply, last=last))(variables, images)
        if want.ndim == 2 and head == "compact":
            got = got.mean((1, 2))
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", HEADS[:2])
def test_on_a_larger_image_it_is_a_loop_over_crops(head):
    """Crops of the size of training, as far apart as the pixels of the last map: 4."""
    model, variables, _ = network(head, (28, 28))
    images = jax.random.normal(jax.random.key(2), (2, 36, 44, 3))
    got = compiled_map(model, variables, images, "fc8")
    assert got.shape == (2, 3, 5, 5)
    corners = [(4 * i, 4 * j) for i in range(3) for j in range(5)]
    crops = [images[:, i : i + 28, j : j + 28] for i, j in corners]
    want = jax.jit(model.apply)(variables, jnp.concatenate(crops))
    want = want.reshape(3, 5, 2, 5)
    np.testing.assert_allclose(got, np.moveaxis(want, 2, 0), rtol=1e-5, atol=1e-6)


def test_types_are_those_of_the_network():
    model, variables, images = network("paper", (28, 28), dtype=jnp.bfloat16)
    dtype = lambda last: (
        jax.eval_shape(
            lambda v, x: activation_map(model, v, x, last), variables, images
        ).dtype
    )
    assert [dtype("fc8"), dtype("relu7")] == [jnp.float32, jnp.bfloat16]


@pytest.mark.parametrize(
    "trained, seen, last, message",
    [
        ((28, 28), (24, 40), "fc8", "give maps of 6x10, .* 7x7 .* at least 28x28"),
        ((28, 32), (28, 32), "fc8", "fc6 has 896 inputs, which are no square map"),
        ((28, 28), (28, 28), "fc9", "last='fc9' is unknown"),
        ((28, 28), (28, 28), "flatten", "last='flatten' has no map"),
    ],
)
def test_what_cannot_be_applied(trained, seen, last, message):
    model, variables, _ = network("paper", trained)
    with pytest.raises(ConfigError, match=message):
        activation_map(model, variables, jnp.zeros((1, *seen, 3)), last)


PADDED = {
    "paper": {"variant": "conv3-8 conv1-8 | conv3-16 conv3-16 |"},
    "paper, one more pixel": {"variant": "conv3-8 | conv3-16 |", "at": (30, 31)},
    "adaptive": {"variant": "conv3-8 | conv3-16 |", "head": "adaptive"},
    "compact": {"variant": "conv3-8 | conv3-16 |", "head": "compact"},
    "LRN": {"variant": "conv3-8 LRN | conv3-16 |"},
    "batch norm": {"variant": "conv3-8 conv3-8 | conv3-16 |", "batch_norm": True},
    "early pool": {
        "variant": "conv3-8 | conv3-8 conv3-16 |",
        "batch_norm": True,
        "pool_early": True,
    },
    "average pool": {"variant": "conv3-8 | conv3-16 |", "pool": "average"},
    "5x5": {"variant": "conv5-8 | conv5-16 |"},
    "the fast convolutions": {"variant": "conv3-8 | conv3-16 |", "conv": "auto"},
}
RARE = ("batch norm", "average pool", "5x5")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(fields, id=name, marks=[pytest.mark.slow] * (name in RARE))
        for name, fields in PADDED.items()
    ],
)
def test_padding_makes_no_difference(fields):
    """Images of several sizes in one shape, against each of them alone."""
    fields = dict(fields)
    at, head = fields.pop("at", (28, 28)), fields.pop("head", "paper")
    model, variables, _ = network(head, at, **fields)
    check_padding(model, variables, sizes=[(28, 28), (33, 47)], shape=(48, 48))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["A", "A-LRN", "B", "C", "D", "E"])
@pytest.mark.parametrize("head", ["paper", "compact"])
def test_padding_makes_no_difference_to_the_papers_networks(variant, head):
    """All of Table 1, narrow: of 16 layers' worth of padding nothing is left."""
    model, variables, images = network(head, (64, 64), variant, width=1 / 16)
    check_padding(model, variables, sizes=[(64, 64), (77, 105)], shape=(96, 128))
    got = jax.jit(class_scores, static_argnums=0)(model, variables, images)
    wanted = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_adaptive_head_is_the_papers_at_224_pixels():
    """torchvision's VGG-16: its 7x7 average is the identity at the size of training."""
    fields = {"width": 1 / 16, "batch_norm": True}
    model, variables, images = network("adaptive", (224, 224), "D", **fields)
    check_padding(model, variables, sizes=[(224, 260)], shape=(256, 320))
    got = jax.jit(class_scores, static_argnums=0)(model, variables, images)
    wanted = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def check_padding(model, variables, *, sizes, shape):
    random = np.random.default_rng(0)  # junk around the images
    images = random.normal(size=(len(sizes), *shape, 3)).astype(np.float32)
    scores = jax.jit(class_scores, static_argnums=0)
    got = scores(model, variables, images, jnp.asarray(sizes, jnp.int32))
    for i, (height, width) in enumerate(sizes):
        alone = images[i : i + 1, :height, :width]
        wanted = compiled_map(model, variables, alone, "fc8").mean((1, 2))
        np.testing.assert_allclose(got[i : i + 1], wanted, rtol=2e-4, atol=2e-4)


def test_inside_it_is_the_crops_and_at_the_borders_it_is_not():
    """Section 3.2: crops are padded with zeros, a dense map with what is around them.

    A window whose convolutions reach over the crop's edge sees other pixels there.
    """
    model, variables, _ = network("paper", (28, 28), "conv3-8 | conv3-16 |")
    image = jax.random.normal(jax.random.key(2), (1, 60, 60, 3))
    before = ("pool2", [(4 * i, 4 * j) for i in range(9) for j in range(9)])
    dense_map = compiled_map(model, variables, image, before[0])
    crops = jnp.concatenate([image[:, i : i + 28, j : j + 28] for i, j in before[1]])
    maps = compiled_map(model, variables, crops, before[0])
    for (i, j), own in zip(before[1], maps, strict=True):
        part = dense_map[0, i // 4 : i // 4 + 7, j // 4 : j // 4 + 7]
        # One pixel of conv1 and one of conv2, 1 + 2 of the image: one of the map.
        np.testing.assert_allclose(part[1:-1, 1:-1], own[1:-1, 1:-1], atol=1e-5)
        if 0 < i < 32 and 0 < j < 32:
            assert np.abs(part - own).max() > 1e-2
