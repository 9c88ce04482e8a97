"""Available memory, in file trees laid out as Linux does (man 5 proc, cgroups(7))."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from vgg_jax import memory

MEMINFO = "MemTotal: 16000 kB\nMemFree: 100 kB\nMemAvailable: 8000 kB\n"
V1 = {"memory.limit_in_bytes": "3000000", "memory.usage_in_bytes": "1500000"}
V2 = {"memory.max": "4000000", "memory.current": "1500000"}


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(path, files, cached):
    files = files | {"memory.stat": f"anon 7\n{cached} 500000\n"}
    return {f"sys/fs/cgroup/{path}/{name}": text for name, text in files.items()}


# By hand: limit - usage + what is cached and given up first.
@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, 8_192_000),
        ({"proc/self/cgroup": "0::/job\n"}, 8_192_000),
        (
            {"proc/self/cgroup": "0::/job/step\n"} | group("job", V2, "inactive_file"),
            3_000_000,  # the limit of a parent
        ),
        (
            {"proc/self/cgroup": "4:cpu:/job\n3:memory:/job\n"}
            | group("memory/job", V1, "total_inactive_file"),
            2_000_000,
        ),
        (
            {"proc/self/cgroup": "0::/job\n"}
            | group("job", V2 | {"memory.max": "max"}, "inactive_file"),
            8_192_000,
        ),
        (
            {"proc/self/cgroup": "0::/job\n"}
            | group("job", V2 | {"memory.max": "9000000000"}, "inactive_file"),
            8_192_000,
        ),
    ],
    ids=["no groups", "no limit", "version 2", "version 1", "max", "a high limit"],
)
def test_the_least_limit_counts(files, expected, tmp_path):
    root = tree(tmp_path, {"proc/meminfo": MEMINFO} | files)
    assert memory.available(root) == expected


def test_elsewhere_it_is_unknown(tmp_path):
    assert memory.available(tmp_path) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux")
def test_this_machine():
    assert 2**20 < memory.available() < 2**50


@pytest.mark.parametrize("pages, short", [(1999, False), (2001, True)])
def test_memory_is_short(pages, short, tmp_path, monkeypatch):
    """By hand: 8,192,000 bytes are available, 2,000 pages of 4,096."""
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096}.__getitem__)
    files = {"proc/meminfo": MEMINFO, "proc/self/statm": f"9000 {pages} 1 1 0 1 0"}
    assert memory.is_short(tree(tmp_path, files)) == short
    assert not memory.is_short(tmp_path / "elsewhere")


KEPT = """
from pathlib import Path
import jax
from vgg_jax import memory

def resident():
    text = Path("/proc/self/status").read_text()
    return next(int(x.split()[1]) for x in text.splitlines() if x.startswith("VmRSS"))

memory.keep_freed()
jax.default_backend()
before = resident()
block = bytearray(b"x") * 200_000_000
above = bytearray(b"x") * 1_000_000  # so that the block is not at the heap's end
del block
kept = resident()
memory.give_back()
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc")
def test_freed_memory_is_kept_and_given_back(monkeypatch):
    for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    root = Path(__file__).resolve().parents[1]
    finished = subprocess.run(
        [sys.executable, "-c", KEPT], cwd=root, capture_output=True, text=True
    )
    kept, left = map(int, finished.stdout.split())  # kB
    assert kept > 190_000 > 100_000 > left, finished.stderr


def test_beside_an_accelerator_malloc_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(memory.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # a call would fail
    memory.give_back()
    files = {"proc/meminfo": MEMINFO, "proc/self/statm": "9000 9000000 1 1 0 1 0"}
    assert not memory.is_short(tree(tmp_path, files))
