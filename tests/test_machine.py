"""What a result says of the machine that it is from."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

import vgg_jax
from vgg_jax import machine

ROOT = Path(__file__).resolve().parents[1]


class _Device(NamedTuple):
    device_kind: str
    platform: str


@pytest.mark.parametrize(
    "devices, cores, said",
    [
        ([_Device("cpu", "cpu")], 2, "2 CPU cores"),
        ([_Device("cpu", "cpu")], 1, "1 CPU core"),
        ([_Device("cpu", "cpu")] * 4, 2, "1 of 4 devices on 2 CPU cores"),
        ([_Device("NVIDIA H100 80GB HBM3", "gpu")], 16, "NVIDIA H100 80GB HBM3"),
        (
            [_Device("NVIDIA H100 80GB HBM3", "gpu")] * 8,
            16,
            "1 of 8 NVIDIA H100 80GB HBM3",
        ),
    ],
)
def test_one_device(devices, cores, said, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(machine, "_cores", lambda: cores)
    assert machine.describe() == machine.environment()["device"] == said


@pytest.mark.parametrize(
    "kind, count, said",
    [
        ("gpu", 4, "4 of 8 NVIDIA H100 80GB HBM3"),
        ("gpu", 8, "8 NVIDIA H100 80GB HBM3"),
        ("cpu", 8, "8 devices on 2 CPU cores"),
    ],
)
def test_several_devices(kind, count, said, monkeypatch):
    devices = [_Device("NVIDIA H100 80GB HBM3", kind)] * 8
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(machine, "_cores", lambda: 2)
    assert machine.describe(count) == machine.environment(count)["device"] == said


def test_one_of_four_real_devices():
    code = "from vgg_jax import machine; print(machine.describe())"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        },
        capture_output=True,
        text=True,
    )
    assert finished.stdout.startswith("1 of 4 devices on "), finished.stderr


def test_a_result_names_its_commit():
    """What git says of this checkout; nothing where there is none."""
    if not (ROOT / ".git").exists():
        assert machine.environment()["commit"] == ""
        return
    head = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    commit, *dirty = machine.environment()["commit"].split("-")
    assert commit == head.stdout.strip() and dirty in ([], ["dirty"])


def test_a_package_outside_a_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(vgg_jax, "__file__", str(tmp_path / "vgg_jax" / "__init__.py"))
    assert machine.environment()["commit"] == ""


@pytest.mark.skipif(not find_spec("llvmlite"), reason="no llvmlite here")
@pytest.mark.skipif(sys.platform != "linux", reason="no /proc/cpuinfo here")
def test_the_kernels_are_those_of_this_cpu():
    """Were there none by mistake, every test of them would be skipped."""
    text = Path("/proc/cpuinfo").read_text()
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    wanted = "AVX512" if "avx512f" in known else "AVX2" if "avx2" in known else ""
    assert machine.kernel_kind() == wanted
