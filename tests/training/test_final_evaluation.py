"""What a run keeps to look at: names of all classes, its first pictures, a trace."""

import gzip
import json
import re
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from rich.console import Console

import vgg_jax
from configs import default
from vgg_jax.data import datasets
from vgg_jax.inference.grad_cam import grad_cam
from vgg_jax.nn.conv import quick_to_compile
from vgg_jax.nn.vgg import VGG
from vgg_jax.runs import gallery
from vgg_jax.training import loop

ROOT = Path(__file__).resolve().parents[2]
# Labels of the images of "test[:12]" do not hold all classes.
CLASSES = (ROOT / "data/cifar10_sample/1.0.0/label.labels.txt").read_text().split()


def tiny():
    """One epoch of eight updates, two of them traced; all that is random is on."""
    config = default.get_config()
    config.update_from_flattened_dict(
        {
            "epochs": 1,
            "seed": 3,
            "profile": 2,
            "batch_size": 40,
            "eval_batch_size": 40,
            "data.name": "cifar10_sample",
            "data.train": "train[:320]",
            "data.validation": "train[320:340]",
            "data.test": "test[:12]",
            "augment.crop": 4,
            "augment.flip": "random",
            "augment.cutout": 8,
            "augment.resize": 24,
            "augment.normalize": "cifar10",
            "model.variant": "conv3-4 | conv3-4 |",
            "model.hidden": (8,),
        }
    )
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's workdir, and what its first update gave to the network."""
    workdir, seen = tmp_path_factory.mktemp("run"), []

    def watch(call, arguments, keywords, context):
        if isinstance(context.module, VGG) and keywords.get("train"):
            jax.debug.callback(lambda x: seen.append(np.array(x)), arguments[0])
        return call(*arguments, **keywords)

    with nn.intercept_methods(watch):
        loop.train(tiny(), workdir, Console(quiet=True))
    jax.effects_barrier()
    return workdir, seen[0]


def test_the_pictures_are_those_of_the_first_update(run):
    workdir, first = run
    shown = gallery.load(workdir)
    assert first.shape == (40, 24, 24, 3) and shown.samples.shape == (32, 24, 24, 3)
    pixels = first[:32].astype(np.float64)
    least, most = pixels.min(), pixels.max()
    wanted = np.round(255 * (pixels - least) / (most - least))
    np.testing.assert_allclose(shown.samples.astype(np.float64), wanted, atol=1)


def test_the_mistakes_are_explained_by_the_tested_network(run):
    """Grad-CAM as `vgg_jax.load` and `grad_cam` give it, each map up to its largest."""
    workdir, _ = run
    shown = gallery.load(workdir)
    network = vgg_jax.load(workdir)
    same_rounding = quick_to_compile(network.model.dtype)
    network = network.configured(conv=same_rounding)
    side = tiny().augment.resize
    pictures = shown.pictures.astype(np.float32) / 255
    seen = jax.image.resize(pictures, (len(pictures), side, side, 3), "bilinear")
    guesses = shown.guesses[shown.mistakes]
    maps = np.asarray(grad_cam(network, seen, guesses, value_range=(0, 1)))
    largest = maps.max((1, 2), keepdims=True)
    assert shown.heat.max() == 255
    np.testing.assert_allclose(shown.heat, 255 * maps / (largest + 1e-12), atol=2)
    assert (workdir / "report.html").read_text().count('class="heat"') >= len(pictures)


def test_a_class_without_a_test_image_is_named(run):
    workdir, _ = run
    result = json.loads((workdir / "result.json").read_text())
    assert result["classes"] == CLASSES
    labels = datasets.load(**tiny().data).test.labels
    present = sorted({CLASSES[label] for label in labels})
    assert sorted(result["test"]["per_class"]) == present != sorted(CLASSES)
    shown = gallery.load(workdir)
    text = (workdir / "report.html").read_text()
    text = text[text.index("The most confident mistakes") :]
    told = re.findall(r"<b>(\w+)</b> \d+%<br>\s*is (\w+)</figure>", text)
    assert told == [
        (CLASSES[shown.guesses[place]], CLASSES[labels[place]])
        for place in shown.mistakes
    ]
    assert len({label for _, label in told}) > 2


def test_the_trace_holds_the_steps_asked_for(run):
    """In the form that ui.perfetto.dev reads; a step's call may be drawn in layers."""
    (file,) = (run[0] / "profile").rglob("perfetto_trace.json.gz")
    with gzip.open(file) as trace:
        events = json.load(trace)["traceEvents"]
    calls = [e for e in events if "(train_step)" in e.get("name", "")]
    ends, outermost = -1.0, 0
    for call in sorted(calls, key=lambda e: (e["ts"], -e["dur"])):
        outermost += call["ts"] >= ends
        ends = max(ends, call["ts"] + call["dur"])
    assert outermost == 2
