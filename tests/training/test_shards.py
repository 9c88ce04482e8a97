"""A batch in shards gives the same bits on any number of devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("on_devices.py")
ROOT = PROGRAM.parents[2]


def trained(*arguments, devices=8):
    flags = f"--xla_force_host_platform_device_count={devices}"
    found = subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_float32_trains_to_the_same_bits(batch_norm):
    rows = trained(8, "float32", batch_norm)
    assert [row["devices"] for row in rows] == [1, 2, 4, 8]
    for row in rows[1:]:
        assert row == rows[0] | {"devices": row["devices"]}


def test_without_shards_only_rounding_differs():
    """Without dropout's and batch norm's shards, so the losses are those of one."""
    rows = trained(1, "float32", True)
    for row in rows[1:]:
        np.testing.assert_allclose(row["last"], rows[0]["last"], 1e-3, 1e-5)
        np.testing.assert_allclose(row["losses"], rows[0]["losses"], 1e-4)
