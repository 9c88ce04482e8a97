"""A plan's numbers against the paper's and the makers'; by TPU's compiler too."""

import pytest

from configs import vgg16
from vgg_jax.cli import config_file
from vgg_jax.cli import plan as command
from vgg_jax.errors import ConfigError
from vgg_jax.training import plan
from vgg_jax.training.config import resolve

# VGG-16 D at 224 px: table 2 of the paper, and 15.47 GMAC, as torchvision states them
# ("GFLOPS" of vgg16: 15.47).
PARAMETERS, MACS = 138_357_544, 15.47e9


def paper(**fields):
    config = vgg16.get_config("D")
    changes = {
        "model.dtype": "bfloat16",
        "model.head": "paper",
        "model.hidden": (4096, 4096),
        "model.num_classes": 1000,
        "augment.resize": 224,
        "batch_size": 256,
    }
    config.update_from_flattened_dict(changes | fields)
    return resolve(config)


def test_eight_gpus():
    planned = plan.plan(paper(), "h100:8", classes=1000, size=224)
    assert planned.images == 32 and not planned.compiled
    assert planned.flops == pytest.approx(6 * 32 * MACS, rel=0.01)
    assert planned.collectives == {"all-reduce": (1, 4 * PARAMETERS)}
    # NVIDIA's data sheet of the H100 SXM: 1,979 TFLOP/s with sparsity, half without;
    # NVLink 900 GB/s, half of it in each direction. A ring passes 7/8 twice.
    seconds = planned.seconds
    assert seconds["arithmetic"] == pytest.approx(
        6 * 32 * MACS / (1979e12 / 2), rel=0.01
    )
    assert seconds["links"] == pytest.approx(4 * PARAMETERS * 2 * 7 / 8 / 450e9)


def test_one_device_sends_nothing():
    planned = plan.plan(paper(), "a100:1", classes=1000, size=224)
    assert not planned.collectives and "links" not in planned.seconds


def test_gpus_that_divide_the_dense_layers():
    """Krizhevsky (2014): fewer bytes cross, as D has 124 of 138 million weights there.

    Weights, velocity and gradients of fc6 to fc8 are a quarter of what they were.
    """
    alone, groups = (
        plan.plan(paper(**{"mesh.model": model}), "h100:8", classes=1000, size=224)
        for model in (1, 4)
    )
    dense = 25_089 * 4096 + 4097 * 4096 + 4097 * 1000  # table 2, with biases
    assert alone.memory - groups.memory == pytest.approx(3 * 4 * dense * 3 / 4)
    assert groups.flops == alone.flops and groups.images == alone.images == 32
    inputs = 4 * 32 * 2 * (25_088 + 4096 + 4096)  # bytes, of a group's images
    assert groups.collectives["all-gather"] == (3, inputs)
    number, size = groups.collectives["all-reduce"]
    assert number == 5 and size == 4 * (PARAMETERS - dense) + dense + inputs
    assert groups.sent < 0.3 * alone.sent


def test_in_words():
    said = command.described(plan.plan(paper(), "h100:8", classes=1000, size=224))
    assert said["images"] == "32 of 256" and "estimated" in said["how known"]
    assert said["all-reduce"] == "1 of 553.4 MB together"


@pytest.mark.parametrize("wrong", ["h100", "h100:0", "tpu:8", "v5e:4x", "v5e:4x4:2"])
def test_what_is_no_topology(wrong):
    with pytest.raises(ConfigError, match=r"--topology|chip"):
        plan.parse(wrong)


@pytest.mark.parametrize("topology", ["h100:7", "v5e:2x4"])
def test_what_cannot_be_planned(topology):
    """Seven do not divide 256 images; there is no libtpu, or 100 images are too few."""
    config = paper(batch_size=256 if topology == "h100:7" else 100)
    with pytest.raises(ConfigError, match="batch_size|pip install libtpu"):
        plan.plan(config, topology, classes=1000, size=224)


@pytest.mark.slow
def test_a_slice_is_compiled_for():
    pytest.importorskip("libtpu", reason="pip install libtpu")
    config = resolve(config_file.load("vgg16:D", ["--config.model.dtype=bfloat16"]))
    one, four = (
        plan.plan(config, topology, classes=10, size=32)
        for topology in ("v5e:1x1", "v5e:2x2")
    )
    assert one.compiled and (one.devices, four.devices) == (1, 4)
    assert not one.collectives
    number, size = four.collectives["all-reduce"]
    # D's convolutions (table 2 of the paper), then fc6 to fc8 at 32 pixels.
    parameters = 14_714_688 + 513 * 4096 + 4097 * 4096 + 4097 * 10
    assert number and 2 * parameters <= size < 2.1 * parameters  # in bfloat16
    assert one.flops == pytest.approx(4 * four.flops, rel=0.1)
    for planned in (one, four):  # weights and velocity at least
        assert 2 * 4 * parameters < planned.memory < 16e9


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields, collective",
    [
        ({"mesh.model": 2}, "all-gather"),  # activations, before a dense layer
        ({"shards": 8}, "collective-permute"),  # sums exchanged along the tree
        ({"mesh.state": "fsdp"}, "all-gather"),  # weights, where a layer needs them
        ({"model.remat": "stage"}, "all-reduce"),
    ],
)
def test_what_may_be_asked_of_a_run_compiles_for_a_slice(fields, collective):
    pytest.importorskip("libtpu", reason="pip install libtpu")
    settings = [f"--config.{name}={value}" for name, value in fields.items()]
    loaded = config_file.load("vgg16:A", [*settings, "--config.model.dtype=bfloat16"])
    planned = plan.plan(resolve(loaded), "v5e:2x2", classes=10, size=32)
    assert collective in planned.collectives
