"""Code that is kept for the next start: of a function that returns a number."""

import ctypes
import errno
import os

import pytest
from llvmlite import ir

from vgg_jax.nn import machine_code


def returning(number):
    module = ir.Module("number")
    function = ir.Function(module, ir.FunctionType(ir.IntType(32), []), "number")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(ir.Constant(ir.IntType(32), number))
    return module


def result(emitted, sources="1"):
    engine = machine_code.loaded("number", emitted, sources)
    return ctypes.CFUNCTYPE(ctypes.c_int32)(engine.get_function_address("number"))()


def never():
    raise AssertionError("what is kept is emitted again")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vgg_jax" / "kernels"


def test_it_is_emitted_once(home):
    assert result(lambda: returning(7)) == 7
    assert result(never) == 7
    (kept,) = home.iterdir()
    assert kept.name.startswith("number-")


def test_it_is_taken_from_a_cache_that_cannot_be_written(home, monkeypatch):
    """As in the image of a container."""
    assert result(lambda: returning(7)) == 7

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert result(never) == 7


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_damaged_code_is_compiled_again(damage, home):
    """Cut, or with a byte that is another: it would crash the process."""
    assert result(lambda: returning(7)) == 7
    (kept,) = home.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + b"?" if damage is None else damage)
    assert result(lambda: returning(8)) == 8
    assert result(never) == 8


def test_other_sources_have_their_own(home):
    assert result(lambda: returning(7)) == 7
    assert result(lambda: returning(8), sources="2") == 8
    assert result(never) == 7


def test_another_machine_has_its_own(home, monkeypatch):
    assert result(lambda: returning(7)) == 7
    before = machine_code._features()
    monkeypatch.setattr(machine_code, "_features", lambda: f"{before},-avx512bf16")
    assert result(lambda: returning(8)) == 8
    assert len(list(home.iterdir())) == 2


def test_nothing_is_kept_of_sources_that_changed(home):
    assert result(lambda: returning(7), sources="") == 7
    assert not home.exists()


def test_what_is_not_used_is_dropped(home):
    assert result(lambda: returning(7)) == 7
    assert result(lambda: returning(8), sources="2") == 8
    for kept in home.iterdir():
        os.utime(kept, (0, 0))
    assert result(never) == 7  # is used
    assert result(lambda: returning(9), sources="3") == 9
    assert len(list(home.iterdir())) == 2
    assert result(never) == 7


def test_what_cannot_be_kept_is_compiled(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert result(lambda: returning(7)) == 7
    assert result(lambda: returning(8)) == 8


def test_a_full_disk_leaves_nothing(home, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert result(lambda: returning(7)) == 7
    assert not list(home.iterdir())
