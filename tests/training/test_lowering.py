"""The steps of a run as lowered for GPU and TPU, on a machine that has neither.

Rests on `jax.export` (StableHLO for the platform) and, in the slow test, on libtpu's
ahead-of-time compiler; nothing here has run on such a device.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.data.batches import Batch, TrainingBatch
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import step
from vgg_jax.training.augment import Augment
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

BATCH = 32
# VGG-16 D, by hand: 13 convolutions, each with a weight gradient, and all but the
# first, whose input is the image, with an input gradient.
CONVOLUTIONS = 13 + 13 + 12


def steps():
    """The two steps for configs/vgg16_bn.py; abstract state and batch."""
    recipe = step.Recipe(
        model=VGG(
            variant="D",
            num_classes=10,
            batch_norm=True,
            head="compact",
            dtype=jnp.bfloat16,
        ),
        augment=Augment(crop=4, flip="random", normalize="cifar10"),
        optimizer=SGD(muon=0.4).transformation(),
        schedule=Schedule(name="cosine").rate(lr=0.1, epochs=2, steps_per_epoch=9),
    )
    state = jax.eval_shape(partial(step.init, recipe, seed=0, image_shape=(32, 32, 3)))
    batch = TrainingBatch(
        jax.ShapeDtypeStruct((BATCH, 32, 32, 3), np.uint8),
        jax.ShapeDtypeStruct((BATCH,), np.int32),
        jax.ShapeDtypeStruct((BATCH,), np.int32),
        jax.ShapeDtypeStruct((), np.int32),
    )
    train_step, eval_step = step.compiled(recipe)
    return train_step, eval_step, state, batch


@pytest.fixture(scope="module", params=["cuda", "tpu"])
def program(request):
    train_step, _, state, batch = steps()
    exported = jax.export.export(train_step, platforms=[request.param])(state, batch)
    return exported.mlir_module(), len(jax.tree.leaves(state))


def convolutions(text):
    return [line for line in text.splitlines() if "stablehlo.convolution" in line]


def test_every_convolution_is_bfloat16(program):
    lines = convolutions(program[0])
    assert len(lines) == CONVOLUTIONS
    for line in lines:
        types = re.findall(r"tensor<[\dx]+x(\w+)>", line.split(" : ")[-1])
        assert types == ["bf16"] * 3, line


def test_no_map_is_summed_in_bfloat16(program):
    """The gradient of a bias is summed over all pixels of a batch."""
    sums = r"stablehlo.reduce\(.*stablehlo.add .*\(tensor<\d+x\d+x\d+x\d+x(\w+)>"
    types = re.findall(sums, program[0])
    assert len(types) >= 13
    assert set(types) == {"f32"}


def test_the_network_is_nhwc(program):
    forward = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    lines = convolutions(program[0])
    assert sum(forward in line for line in lines) == 13
    # The gradients swap roles, never the order of pixels and channels in memory.
    moved = [x for x in program[0].splitlines() if "stablehlo.transpose" in x]
    assert moved
    for line in moved:
        assert not re.search(rf"tensor<{BATCH}x\d+x\d+x\d+x", line), line


def test_the_state_is_donated(program):
    text, leaves = program
    assert len(re.findall(r"tf.aliasing_output|jax.buffer_donor", text)) == leaves


@pytest.mark.parametrize(
    "forbidden", ["f64", "callback", "onednn", "inlineable", "infeed", "outfeed"]
)
def test_nothing_of_host_or_cpu_is_left(program, forbidden):
    assert forbidden not in program[0]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_evaluation_step_keeps_its_weights(platform):
    """Of one view: a convolution per layer, and nothing donated."""
    _, eval_step, state, batch = steps()
    batch = Batch(batch.images, batch.labels)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    program = jax.export.export(eval_step, platforms=[platform])(variables, batch)
    text = program.mlir_module()
    assert len(convolutions(text)) == 13
    assert not re.search(r"tf.aliasing_output|jax.buffer_donor", text)


def test_the_cpu_has_its_own_algorithms():
    """The same "auto" network, lowered for the CPU: the tests above would see it."""
    train_step, _, state, batch = steps()
    text = jax.export.export(train_step, platforms=["cpu"])(state, batch).mlir_module()
    assert len(convolutions(text)) < CONVOLUTIONS


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_network_built_by_hand_carries_no_cpu_algorithm(platform, dtype):
    """C at 32 px has each kind of layer: 3x3 at five sizes, 1x1 kernels, a 2x2 map."""
    model = VGG("C", num_classes=10, width=0.25, head="compact", dtype=dtype)
    assert model.conv == "auto" and jax.default_backend() == "cpu"
    images = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    program = jax.export.export(jax.jit(model.apply), platforms=[platform])
    text = program(variables, images).mlir_module()
    assert len(convolutions(text)) == 13  # C has 13 convolutions
    products = [x for x in text.splitlines() if "stablehlo.dot_general" in x]
    assert len(products) == 1  # fc8


@pytest.mark.slow
def test_compiles_for_a_tpu(monkeypatch):
    """Ahead of time, data-parallel over the four chips of a v5e host."""
    pytest.importorskip("libtpu", reason="pip install libtpu")
    from jax.experimental import topologies

    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    topology = topologies.get_topology_desc("v5e:2x2", platform="tpu")
    mesh = jax.sharding.Mesh(np.array(topology.devices), ("data",))
    spec = jax.sharding.PartitionSpec
    whole = jax.sharding.NamedSharding(mesh, spec())
    split = jax.sharding.NamedSharding(mesh, spec("data"))
    train_step, _, state, batch = steps()
    place = lambda s: jax.ShapeDtypeStruct(
        s.shape, s.dtype, sharding=split if s.shape and s.dtype != np.uint32 else whole
    )
    replicate = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole)
    compiled = train_step.lower(
        jax.tree.map(replicate, state), jax.tree.map(place, batch)
    ).compile()
    text = compiled.as_text()
    assert "convolution" in text and "all-reduce" in text and "f64" not in text
    memory = compiled.memory_analysis()
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    assert memory.alias_size_in_bytes > 2 * parameters  # weights and velocity
