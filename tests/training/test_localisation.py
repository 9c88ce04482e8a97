"""Classifiers made into localisers: what trains, what stays, and that it learns."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vgg_jax
from vgg_jax.data.composites import Boxed
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.evaluation import localisation
from vgg_jax.inference.localise import central_boxes
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG
from vgg_jax.training.box_regression import BoxRegression
from vgg_jax.training.localisation import fine_tune
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

MODEL = VGG(
    "conv3-8 | conv3-16 |", 3, batch_norm=True, hidden=(32,), dropout=0.0, conv="lax"
)
CLASSIFIER = random(MODEL, "symmetric", size=16, class_names=("a", "b", "c"))


def squares(count, seed):
    """White rectangles on noise: 20x20 pixels, and where they are."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, 20, 20, 3)).astype(np.uint8)
    sides = rng.integers(6, 13, (count, 2))
    corners = rng.integers(0, 21 - sides)
    for image, (width, height), (left, top) in zip(images, sides, corners, strict=True):
        image[top : top + height, left : left + width] = 255
    boxes = np.concatenate([corners + sides / 2, sides], 1) / 20
    return Boxed(images, np.arange(count) % 3, boxes.astype(np.float32))


def settings(**fields):
    short = {"scale": 20, "epochs": 1, "batch_size": 8, "lr": 0.01}
    return BoxRegression(**(short | fields))


def weights(network):
    return flatten_dict(jax.device_get(network.variables), sep="/")


def changed(before, after):
    """Names of the arrays that differ in a bit; fc8 is another one."""
    a, b = weights(before), weights(after)
    same = {name for name in a if np.array_equal(a[name], b[name])}
    return {name.split("/", 1)[1].split("/")[0] for name in a.keys() - same}


@pytest.mark.parametrize(
    "layers, wanted",
    [
        ("all", {"conv1_1", "bn1_1", "conv2_1", "bn2_1", "fc7", "fc8"}),
        ("dense", {"fc7", "fc8"}),
    ],
)
def test_what_trains_and_what_keeps_its_bits(layers, wanted):
    """Running averages of batch norm included; the classifier stays as it is."""
    before = weights(CLASSIFIER)
    got = fine_tune(CLASSIFIER, squares(16, 0), settings(layers=layers))
    assert changed(CLASSIFIER, got) == wanted
    assert all(np.array_equal(x, before[n]) for n, x in weights(CLASSIFIER).items())


def test_one_box_per_class_learns_of_its_own_class_only():
    """Without decay the outputs of a class that no picture has are the first ones."""
    pictures = squares(16, 0)
    pictures = pictures._replace(labels=np.where(pictures.labels == 2, 0, 1))
    plain = SGD(decay="l2", weight_decay=0.0)
    first, last = (
        weights(fine_tune(CLASSIFIER, pictures, settings(lr=lr, optimizer=plain)))
        for lr in (1e-30, 0.01)
    )
    moved = (first["params/fc8/kernel"] != last["params/fc8/kernel"]).any(0)
    assert moved.reshape(3, 4).all(1).tolist() == [True, True, False]
    assert moved.reshape(3, 4).any(1).tolist() == [True, True, False]


def test_it_is_a_function_of_its_arguments():
    pictures = squares(16, 0)
    one, same, other = (
        weights(fine_tune(CLASSIFIER, pictures, settings(epochs=2, seed=seed)))
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["params/fc7/kernel"], other["params/fc7/kernel"])


@pytest.mark.parametrize(
    "per_class", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_it_finds_rectangles(per_class):
    """From random crops, half of them mirrored, to the central crop of other pictures.

    A box in the middle of the picture, the best that knows nothing of it, is wrong for
    most of them.
    """
    losses = []
    how = settings(
        per_class=per_class,
        epochs=30,
        batch_size=32,
        lr=0.03,
        schedule=Schedule(name="cosine", warmup=0.1),
        optimizer=SGD(decay="l2", clip_norm=1.0),
    )
    got = fine_tune(
        CLASSIFIER, squares(512, 0), how, lambda epoch, loss: losses.append(loss)
    )
    test = squares(200, 1)
    boxes = central_boxes(got, test.images, test.labels, scale=20)
    middle = np.tile(np.float32([[0.5, 0.5, 0.5, 0.5]]), (200, 1))
    assert localisation.error(middle, test.boxes) > 0.6
    assert localisation.error(np.asarray(boxes), test.boxes) < 0.25
    assert len(losses) == 30 and losses[-1] < losses[0] / 10


def test_save_keeps_a_localiser(tmp_path):
    pictures = squares(8, 0)
    got = fine_tune(CLASSIFIER, pictures, settings())
    vgg_jax.save(got, tmp_path / "localiser.safetensors")
    again = vgg_jax.load(tmp_path / "localiser.safetensors")
    assert again.class_names[4:6] == ("b: centre x", "b: centre y")
    assert again.random_layers == () and again.size == 16
    one, two = (
        central_boxes(x, pictures.images, pictures.labels, scale=20)
        for x in (got, again)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"boxes": squares(8, 0).boxes * 20}, "divide pixels"),
        ({"boxes": squares(7, 0).boxes}, r"not \[8, 4\]"),
        ({"labels": np.full(8, 3)}, "label 3 is no class of the network, which has 3"),
        ({"labels": np.full(8, -1)}, "each has one, at least 0"),
        ({"labels": np.zeros(7, int)}, "for 8 pictures"),
    ],
)
def test_wrong_pictures_are_told(change, message):
    with pytest.raises(ConfigError, match=message):
        fine_tune(CLASSIFIER, squares(8, 0)._replace(**change), settings())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"layers": "some"}, "layers='some' is unknown"),
        ({"lr": 0.0}, "lr=0.0 is out of range"),
        ({"schedule": Schedule()}, "plateau.* needs a validation"),
        ({"scale": 15}, "scale=15 must be at least the 16 pixels"),
        ({"batch_size": 9}, "batch_size=9 is larger"),
    ],
)
def test_wrong_settings_are_told(fields, message):
    with pytest.raises(ConfigError, match=message):
        fine_tune(CLASSIFIER, squares(8, 0), settings(**fields))


def test_a_network_that_does_not_say_its_size_is_told():
    with pytest.raises(ConfigError, match="0: it does not say"):
        fine_tune(CLASSIFIER.replace(size=0), squares(8, 0), settings())


def test_a_loss_that_explodes_is_told():
    with pytest.raises(RunError, match="the loss of epoch 1 is nan: lower lr"):
        fine_tune(CLASSIFIER, squares(16, 0), settings(lr=1e30))
