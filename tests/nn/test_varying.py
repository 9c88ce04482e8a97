"""Gradients in `jax.shard_map` as it comes, which checks along which axes arrays vary.

Four devices in a process of their own, each with a quarter of the batch. The gradients
by weights that all of them have are compared with those of the whole batch, by plain
convolutions.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from vgg_jax.nn import varying

PROGRAM = """
import sys
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from vgg_jax import mesh as meshes
from vgg_jax.nn import pieces
from vgg_jax.nn.vgg import VGG

if sys.argv[2] == "pieces":
    pieces.BYTES = 10_000
mesh, fields = meshes.over(4), {"head": "compact", "batch_norm": sys.argv[1] == "norm"}
x = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
variables = VGG("conv3-8 conv1-8 | conv3-8 |", 5, **fields).init(jax.random.key(1), x)
params = variables.pop("params")

def gradient(conv, spread):
    model = VGG("conv3-8 conv1-8 | conv3-8 |", 5, conv=conv, **fields)
    def loss(params, x):
        full = {"params": params, **variables}
        logits, _ = model.apply(full, x, train=True, mutable=["batch_stats"])
        return jnp.square(logits).sum()
    function = jax.grad(loss, argnums=(0, 1))
    if spread:
        rows = P(meshes.AXES)
        function = jax.shard_map(
            function, mesh=mesh, in_specs=(P(), rows), out_specs=(P(), rows)
        )
    return jax.jit(function)(params, x)

want = gradient("lax", spread=fields["batch_norm"])  # statistics are each device's own
got = gradient("auto", spread=True)
# Some are zero but for rounding: those by biases before batch norm.
least = 0.01 * max(jnp.linalg.norm(theirs) for theirs in jax.tree.leaves(want))
for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    size = jnp.maximum(jnp.linalg.norm(theirs), least)
    assert jnp.linalg.norm(ours - theirs) <= 1e-4 * size, ours.shape
"""


@pytest.mark.parametrize(
    "norm, cut",
    [
        pytest.param("plain", "whole", marks=pytest.mark.slow),
        ("plain", "pieces"),
        ("norm", "whole"),
    ],
)
def test_gradients_by_weights_that_all_have(norm, cut):
    flags = (
        "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    )
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, norm, cut],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_plain_numbers_stay():
    assert varying.alike([2, 3.0]) == [2, 3.0]
    assert varying.axes(jax.typeof(2.0)) == frozenset()
