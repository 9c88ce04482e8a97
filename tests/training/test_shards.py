"""A batch in shards gives the same bits on any number of devices."""

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


@pytest.mark.parametrize("batch_norm", [False, True])
def test_float32_trains_to_the_same_bits(batch_norm):
    rows = told("on_devices.py", 8, "float32", batch_norm, devices=8)
    assert [row["devices"] for row in rows] == [1, 2, 4, 8]
    for row in rows[1:]:
        assert row == rows[0] | {"devices": row["devices"]}


def test_whole_runs_come_to_the_same_bits():
    """On 1, 2 and 4 devices, and stopped on 4 to go on with 2."""
    rows = told("runs_on_devices.py", 4, devices=4)
    assert [row.pop("run") for row in rows] == ["1", "2", "4", "moved"]
    for row in rows[1:]:
        assert row == rows[0]


def test_without_shards_only_rounding_differs():
    """Without dropout's and batch norm's shards, so the losses are those of one."""
    rows = told("on_devices.py", 1, "float32", True, devices=8)
    for row in rows[1:]:
        np.testing.assert_allclose(row["last"], rows[0]["last"], 1e-3, 1e-5)
        np.testing.assert_allclose(row["losses"], rows[0]["losses"], 1e-4)
