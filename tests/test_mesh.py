"""Programs on four devices: which rows each holds, and that the commands use them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = """
import json, numpy as np
from vgg_jax import mesh
four = mesh.over()
parts = mesh.in_parts(np.arange(8), four)
copies = mesh.on_all(np.arange(2), four)
print(json.dumps([[s.data.tolist() for s in x.addressable_shards]
                  for x in (parts, copies)]))
"""


def told(*arguments, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_rows_are_spread_and_weights_are_everywhere():
    parts, copies = json.loads(told("-c", ROWS, devices=4))
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert copies == 4 * [[0, 1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("predict", "examples/pictures", "--csv"),
        ("evaluate", "--data=cifar10_sample"),
        ("evaluate", "--data=cifar10_sample", "--protocol=dense"),
    ],
)
def test_a_command_says_the_same_on_four_devices(command):
    """To the digits that are printed: batches are divided, sums add up otherwise."""
    one, four = (told("-m", "vgg_jax", *command, devices=n) for n in (1, 4))
    said = [  # but for the progress, which is a matter of seconds
        [line for line in text.splitlines() if not line.endswith(" images")]
        for text in (one, four)
    ]
    assert said[0] == said[1] and len(said[0]) > 2
