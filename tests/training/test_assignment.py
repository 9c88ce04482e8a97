"""Kernels are dealt to the devices: a fair share each, and the bits of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vgg_jax.nn.vgg import VGG
from vgg_jax.training import assignment

ROOT = Path(__file__).resolve().parents[2]
DIRECTIONS = """
import json, zlib, jax, numpy as np
from vgg_jax import mesh
from vgg_jax.training.muon import of_kernels
draw = np.random.default_rng(0).normal
shapes = 8 * [(3, 3, 16, 16)]
tree = {f"conv{i}": {"kernel": draw(size=s).astype("f4")} for i, s in enumerate(shapes)}
tree["fc8"] = {"kernel": draw(size=(8, 4)).astype("f4")}
update = of_kernels(0.5).update
for count in (1, 2, 4, 8):
    move = lambda tree: update(tree, (), learning_rate=0.1, mesh=mesh.over(count))[0]
    program = jax.jit(move).lower(tree).compile()
    moved = jax.tree.leaves(jax.device_get(program(tree)))
    bits = zlib.crc32(b"".join(leaf.tobytes() for leaf in moved))
    print(json.dumps([bits, program.cost_analysis()["flops"]]))
"""


def test_directions_are_the_same_bits_and_less_work():
    flags = "--xla_force_host_platform_device_count=8"
    ran = subprocess.run(
        [sys.executable, "-c", DIRECTIONS],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    bits, flops = zip(*map(json.loads, ran.stdout.splitlines()), strict=True)
    assert len(set(bits)) == 1
    for devices, count in zip((1, 2, 4, 8), flops, strict=True):
        assert count < 1.2 * flops[0] / devices


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 256])
def test_every_task_is_done_once_and_fairly(devices):
    """Graham (1969): at most 4/3 of the best, which is no less than these two."""
    layers = VGG("E").layers((224, 224))
    costs = [9 * s.inputs * s.channels**2 for s in layers if s.kind == "conv"]
    dealt = assignment.hands(costs, devices)
    assert sorted(sum(dealt, [])) == list(range(len(costs))) and len(dealt) <= devices
    most = max(sum(costs[i] for i in hand) for hand in dealt)
    pair = sum(sorted(costs)[-devices - 1 :][:2]) if devices < len(costs) else 0
    assert most <= 4 / 3 * max(sum(costs) / devices, max(costs), pair) + 1
