"""A batch spread over the devices of a mesh gives what one device gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("on_a_mesh.py")
ROOT = PROGRAM.parents[2]


@pytest.fixture
def cases():
    flags = "--xla_force_host_platform_device_count=4"
    found = subprocess.run(
        [sys.executable, PROGRAM],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.slow
def test_values_and_gradients_on_four_devices(cases):
    kinds = [kind for _, kind, _, _ in cases]
    assert kinds.count("Explicit") == 16  # 13 layers, 2 networks, a loss
    assert kinds.count("Auto") == 3  # the networks, the loss
    for name, kind, error, axis in cases:
        assert error < (3e-2 if "bfloat16" in name else 1e-4), (name, kind)
        assert axis == "data", (name, kind)
