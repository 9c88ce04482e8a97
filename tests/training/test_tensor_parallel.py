"""Groups of devices divide the dense layers; the numbers are those of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import default
from vgg_jax import mesh
from vgg_jax.errors import ConfigError
from vgg_jax.training.config import resolve

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HIDDEN = 64, 1024  # of `on_meshes.py`


def told(program, *arguments):
    flags = "--xla_force_host_platform_device_count=4"
    environ = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, HERE / program, *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def equal_but_for_rounding(row, one):
    """With dropout, batch norm over the batch and Muon."""
    np.testing.assert_allclose(row["losses"], one["losses"], 1e-5)
    np.testing.assert_allclose(row["loss"], one["loss"], 1e-5)
    for name in ("logits", "params"):
        np.testing.assert_allclose(row[name], one[name], 1e-4, 1e-4)


@pytest.mark.slow
def test_a_group_of_two_comes_to_the_numbers_of_one_device():
    one, two = told("on_meshes.py", "1x1", "1x2")
    equal_but_for_rounding(two, one)
    assert one["fc7"] == [*HIDDEN] and two["fc7"] == [HIDDEN[0], HIDDEN[1] // 2]
    assert two["held"] < 0.6 * one["held"]  # fc7 is most of the network
    kernel = 4 * HIDDEN[0] * HIDDEN[1]  # bytes; none of it is sent
    assert sum(size for _, size in two["sent"].values()) < kernel


@pytest.mark.slow
def test_meshes_of_any_shape_come_to_the_numbers_of_one_device():
    shapes = "1x1", "4x1", "2x2", "1x4", "2x2:zero1", "2x2:fsdp"
    one, *others = told("on_meshes.py", *shapes)
    for row in others:
        equal_but_for_rounding(row, one)
    held = [row["held"] / one["held"] for row in others]
    assert held[0] == 1
    assert held[1] < 0.6 and held[2] < 0.4  # 2x2, 1x4
    assert held[4] < held[3] < held[1] - 0.1  # fsdp, zero1, replicated
    assert held[4] < 0.3


@pytest.mark.slow
def test_a_run_goes_on_with_a_mesh_of_another_shape():
    """Its checkpoints are whole; validation and test are on the same mesh."""
    names = "1", "2x2", "2x2 to 1", "4 to 1x2"
    one, *others = told("runs_on_devices.py", "1", *names)
    for row in others:
        np.testing.assert_allclose(row["loss"], one["loss"], 1e-3)
        assert len(row["rows"]) == len(one["rows"]) == 3
        for epoch, expected in zip(row["rows"], one["rows"], strict=True):
            for key in ("train_loss", "val_loss", "learning_rate"):
                np.testing.assert_allclose(epoch[key], expected[key], 1e-3)


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"model.head": "compact"}, "mesh.model=2 divides the hidden dense layers"),
        ({"model.hidden": ()}, "and there are none .*: set mesh.model=1"),
        (
            {"model.hidden": (4096, 99)},
            "cannot be divided among groups of mesh.model=2",
        ),
        ({"shards": 8}, "shards=8 are computed .* set one of them to 1"),
    ],
)
def test_what_groups_cannot_divide(fields, text):
    config = default.get_config()
    config.update_from_flattened_dict({"mesh.model": 2} | fields)
    with pytest.raises(ConfigError, match=text):
        resolve(config)


def test_devices_that_make_no_groups():
    with pytest.raises(
        ConfigError, match=r"mesh.data=0, mesh.model=1000, but JAX sees"
    ):
        mesh.over(0, 1000)
