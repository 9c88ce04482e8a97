"""The example of flax.nnx: the same network on both sides of the bridge."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import vgg_jax
from vgg_jax.interop.network import random
from vgg_jax.nn.images import network_input

PATH = Path(__file__).resolve().parents[1] / "examples" / "nnx_bridge.py"
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("nnx_bridge", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(**fields):
    model = vgg_jax.VGG("conv3-4 | conv3-8 |", 10, conv="lax", **fields)
    network = random(model, "cifar10", size=16, seed=3)
    moved = jax.tree.map(lambda x: x + 0.1, network.variables)  # batch_stats, too
    return network.replace(variables=moved)


@pytest.mark.parametrize(
    "fields",
    [
        {"head": "compact", "batch_norm": True},
        {"head": "paper", "hidden": (8,), "dropout": 0.5},
    ],
)
def test_the_module_is_the_network_there_and_back(example, fields):
    network = tiny(**fields)
    seen = network_input(IMAGES, network.preprocessing)
    module = example.module_of(network, seen)
    np.testing.assert_allclose(module(seen), network(IMAGES), rtol=1e-4, atol=1e-5)
    back = example.network_of(module, network)
    jax.tree.map(np.testing.assert_array_equal, back.variables, network.variables)


def test_it_trains_a_loaded_network_and_saves_it(example, tmp_path, capsys):
    network = tiny(head="compact", batch_norm=True)
    weights, out = tmp_path / "weights.safetensors", tmp_path / "tuned.safetensors"
    vgg_jax.save(network, weights)
    options = {"steps": 8, "batch_size": 32, "lr": 0.05}
    example.main(SimpleNamespace(weights=weights, out=out, **options))
    losses = [float(x.split()[-1]) for x in capsys.readouterr().out.splitlines()]
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.1
    tuned = vgg_jax.load(out)
    assert tuned.model == network.model
    for read in (
        lambda variables: variables["params"]["conv1_1"]["kernel"],
        lambda variables: variables["batch_stats"]["bn2_1"]["mean"],
    ):
        assert not np.array_equal(read(tuned.variables), read(network.variables))
