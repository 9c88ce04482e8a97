"""The score of a network as a value, and what `vgg evaluate` says."""

import numpy as np
import pytest

from vgg_jax.cli import evaluate
from vgg_jax.cli.command import parser_of
from vgg_jax.data import datasets
from vgg_jax.data.in_memory import Split
from vgg_jax.errors import ConfigError
from vgg_jax.evaluation.of_network import score
from vgg_jax.interop import zoo
from vgg_jax.interop.load import load
from vgg_jax.interop.network import random
from vgg_jax.interop.save import save
from vgg_jax.nn.vgg import VGG
from vgg_jax.training.augment import Augment

MODEL = VGG("conv3-8 |", 10, head="compact", conv="lax", dtype="bfloat16")


def test_it_counts_the_right_answers_of_the_network():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (23, 8, 8, 3), np.uint8)
    network = random(MODEL, "cifar10", size=8)
    logits = np.asarray(network.configured(dtype="float32")(images))
    guesses = np.argmax(logits, 1)
    wrong = (guesses + 1) % 10
    labels = np.where(np.arange(23) < 14, guesses, wrong).astype(np.int32)
    found = score(network, Split(images, labels), batch_size=7)
    assert found.count == 23 and found.accuracy == pytest.approx(14 / 23)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-5)
    few = network.replace(model=MODEL.clone(num_classes=4))
    with pytest.raises(ConfigError, match="has 4 classes, and the labels are of"):
        score(few, Split(images, labels))


def test_small_images_are_enlarged_as_in_training():
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (6, 8, 8, 3), np.uint8), np.zeros(6, np.int32))
    network = random(MODEL, "cifar10", size=12)
    seen = Augment(resize=12, normalize="cifar10").evaluate(split.images)
    want = network.configured(dtype="float32").model.apply(network.variables, seen)
    got = score(network, split, batch_size=4).logits
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "option, message",
    [
        ("--data=folder:photos", "add --protocol=center"),
        ("--split=x", r"split='x' is not a split of"),
    ],
)
def test_what_is_no_split(option, message, tmp_path):
    save(random(MODEL, "cifar10", size=32), file := tmp_path / "x.safetensors")
    options = ["--data=cifar10_sample", f"--weights={file}", option]
    with pytest.raises(ConfigError, match=message):
        evaluate.run(parser_of("evaluate").parse_args(options))


def test_other_classes_are_refused(tmp_path):
    names = ("airplane", "car", *"cdefghij")
    save(
        random(MODEL, "cifar10", size=32, class_names=names), tmp_path / "x.safetensors"
    )
    command = ["--data=cifar10_sample", f"--weights={tmp_path / 'x.safetensors'}"]
    with pytest.raises(ConfigError, match="has other classes .*: car, not automobile"):
        evaluate.run(parser_of("evaluate").parse_args(command))


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.cards())
def test_a_card_says_what_is_measured(name):
    """On all 10,000 test images; ties are within rounding on another machine."""
    split, classes, _ = datasets.one_split(zoo.cards()[name].dataset, "test")
    network = load(name)
    assert network.class_names == classes
    for views, accuracy in zoo.cards()[name].accuracy.items():
        assert score(network, split, views=int(views)).accuracy == accuracy
