"""A batch in shards gives the same bits on any number of devices.

Most of these take minutes; by default two devices are compared with one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def told(program, *arguments, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    found = subprocess.run(
        [sys.executable, HERE / program, *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_two_devices_come_to_the_same_bits():
    """Losses, weights and evaluation, after a few steps of a small network."""
    one, two = told("on_devices.py", 2, "float32", True, 0, "tiny", 1, 2, devices=2)
    assert one.pop("devices") != two.pop("devices")
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, batch_norm, muon, head",
    [
        ("float32", True, 0, "paper"),
        ("float32", False, 0, "paper"),
        ("float32", True, 0.4, "paper"),
        ("bfloat16", True, 0, "paper"),
        ("bfloat16", False, 0, "compact"),
    ],
)
def test_steps_come_to_the_same_bits(dtype, batch_norm, muon, head):
    counts = 1, 2, 4, 8
    network = dtype, batch_norm, muon, head
    rows = told("on_devices.py", 8, *network, *counts, devices=8)
    assert [row.pop("devices") for row in rows] == list(map(str, counts))
    for row in rows[1:]:
        assert row == rows[0]


@pytest.mark.slow
@pytest.mark.parametrize("muon", [0, 0.4])
def test_a_state_that_is_spread_comes_to_the_same_bits(muon):
    """And a device of eight holds an eighth of what is spread, but for small arrays."""
    places = "1", "8", "8:zero1", "8:fsdp"
    rows = told("on_devices.py", 8, "float32", True, muon, "paper", *places, devices=8)
    held = [row.pop("held") for row in rows]
    assert [row.pop("devices") for row in rows] == list(places)
    for row in rows[1:]:
        assert row == rows[0]
    whole, replicated, zero1, fsdp = held
    assert replicated == whole
    assert zero1 / whole == pytest.approx(1 / 2 + 1 / 16, abs=0.1)  # the velocity
    assert fsdp / whole == pytest.approx(1 / 8, abs=0.2)


@pytest.mark.slow
def test_whole_runs_come_to_the_same_bits():
    """On 1, 2 and 4 devices, with the images there; stopped on some, then on others."""
    placed = "placed", "fsdp", "moved", "fsdp to 1", "fsdp on 2 to 4"
    runs = "1", "2", "4", *placed
    rows = told("runs_on_devices.py", 4, *runs, devices=4)
    assert [row.pop("run") for row in rows] == list(runs)
    for row in rows[1:]:
        assert row == rows[0]


@pytest.mark.slow
def test_without_shards_only_rounding_differs():
    """Dropout and batch norm see the whole batch, on any number of devices."""
    rows = told("on_devices.py", 1, "float32", True, 0, "paper", 1, 2, 4, 8, devices=8)
    for row in rows[1:]:
        np.testing.assert_allclose(row["last"], rows[0]["last"], 1e-3, 1e-5)
        np.testing.assert_allclose(row["losses"], rows[0]["losses"], 1e-4)
