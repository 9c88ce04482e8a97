"""What `--devices` may name, and what it makes a run see."""

import os

import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.runs import devices


@pytest.fixture
def gpus(monkeypatch):
    """Three GPUs, of which CUDA numbers none away."""
    monkeypatch.setattr(devices, "seen", lambda: ("gpu", 3))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def visible(option, variable="CUDA_VISIBLE_DEVICES"):
    return [device.variables.get(variable) for device in devices.chosen(option)]


@pytest.mark.parametrize(
    "listed, expected",
    [
        (None, ["0", "2"]),
        ("4,7,9", ["4", "9"]),
        ("GPU-8932f937, GPU-d42a5f0f ,MIG-5c89852c", ["GPU-8932f937", "MIG-5c89852c"]),
    ],
)
def test_a_number_counts_the_callers_devices(gpus, monkeypatch, listed, expected):
    """CUDA C++ Programming Guide, "CUDA Environment Variables"."""
    if listed:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible("0, 2") == expected


def test_a_tpu_has_its_own_variable(monkeypatch):
    """CUDA's says nothing there, even where it is empty."""
    monkeypatch.setattr(devices, "seen", lambda: ("tpu", 4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TPU_VISIBLE_CHIPS", "2,3")
    assert visible("1", "TPU_VISIBLE_CHIPS") == ["3"]
    assert visible("1") == [None]
    with pytest.raises(ConfigError, match="finds 0,1 here, with TPU_VISIBLE_CHIPS=2,3"):
        devices.chosen("2")


def test_where_jax_does_not_answer_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "seen", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("TPU_VISIBLE_CHIPS", raising=False)
    assert visible("1") == ["7"] and visible("1", "TPU_VISIBLE_CHIPS") == ["1"]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("gpu", "'gpu' is no device: write the numbers"),
        ("cuda:0", "'cuda:0' is no device"),
        ("-1", "'-1' is no device"),
        ("0,", "'' is no device"),
        ("cpu", "'cpu' is no device"),
        ("CPU0", "'CPU0' is no device"),
        ("cpu\u00b2", "is no device"),
        ("0,1,0", "0 is there 2 times"),
        ("1,01", "1 is there 2 times"),
        ("cpu0,cpu0", "cpu0 is there 2 times"),
        ("cpu0,1", "devices of one kind"),
        ("3", "JAX finds 0,1,2 here$"),
    ],
)
def test_a_wrong_device_is_told(gpus, wrong, said):
    with pytest.raises(ConfigError, match=f"^--devices={wrong}: .*{said}"):
        devices.chosen(wrong)


def test_a_hidden_gpu_is_not_there(gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    with pytest.raises(ConfigError, match="0,1 here, with CUDA_VISIBLE_DEVICES=5,6"):
        devices.chosen("0,2")


def test_a_number_where_there_is_no_accelerator_is_told(monkeypatch):
    """JAX itself is asked, in another process: this one starts no backend for it."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert devices.seen() == ("cpu", 1)
    with pytest.raises(ConfigError, match="no GPU or TPU here.*name its cores"):
        devices.chosen("0")


def test_a_core_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)
    assert [device.core for device in devices.chosen("cpu1, cpu0")] == [1, 0]
    with pytest.raises(ConfigError, match="the cores here are cpu0,cpu1"):
        devices.chosen("cpu0,cpu9999")
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(ConfigError, match="only Linux"):
        devices.chosen("cpu0")
