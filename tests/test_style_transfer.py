"""The example paints a picture, on a network of two stages."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import vgg_jax
from vgg_jax.interop.network import random

ROOT = Path(__file__).resolve().parents[1]
FLAT = SimpleNamespace(steps=12, style_weight=1.0, smooth=0.1)


@pytest.fixture(autouse=True)
def as_a_user_has_it():
    """optax.adam mixes its int32 count and floats, which JAX refuses in tests."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def example():
    path = ROOT / "examples" / "style_transfer.py"
    spec = importlib.util.spec_from_file_location("style_transfer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CONTENT, module.STYLE = ("relu2_1",), ("relu1_1", "relu2_1")
    return module


@pytest.fixture(scope="module")
def network():
    model = vgg_jax.VGG("conv3-8 | conv3-8 |", 2, head="compact", conv="lax")
    return random(model, "imagenet", size=16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A grey ramp to paint, and red stripes to paint it like."""
    ramp = np.broadcast_to(np.linspace(0, 255, 32)[None, :, None], (24, 32, 3))
    stripes = np.zeros((32, 32, 3))
    stripes[::4, :, 0] = 255
    paths = []
    for name, pixels in (("ramp", ramp), ("stripes", stripes)):
        paths.append(tmp_path_factory.getbasetemp() / f"{name}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


def test_it_paints(example, network, pictures, tmp_path, monkeypatch):
    vgg_jax.save(network, tmp_path / "weights.safetensors")
    content, style = pictures
    words = f"style_transfer --weights {tmp_path}/weights.safetensors --steps 2"
    words += f" --content {content} --style {style} --size 32 --out {tmp_path}/out.png"
    monkeypatch.setattr(sys, "argv", words.split())
    monkeypatch.setattr(example, "SCALES", (2, 1))
    example.main()
    with Image.open(tmp_path / "out.png") as painted:
        assert painted.size == (32, 24) and painted.mode == "RGB"
        assert np.std(painted) > 10


def test_the_loss_falls_and_the_style_is_nearer(example, network, pictures):
    content, style = (example.read(path, 32) for path in pictures)
    steps = list(example.paint(network, content, content, style, FLAT))
    losses = [loss for loss, _ in steps]
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]

    def strangeness(picture):
        seen = [
            network.activations(x, ("relu1_1",), value_range=(0, 1))["relu1_1"]
            for x in (picture, style)
        ]
        ours, wanted = (np.einsum("bhwc,bhwd->cd", x, x) / x.size for x in seen)
        return np.linalg.norm(ours - wanted)

    assert strangeness(steps[-1][1]) < 0.9 * strangeness(content)
