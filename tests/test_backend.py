"""What is set before JAX starts, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLAG = "--xla_cpu_experimental_onednn_custom_call"

SECOND_START = """
import collections, sys
from pathlib import Path
from vgg_jax import backend
backend.configure()
import jax
from rich.console import Console
from configs import vgg16
from vgg_jax.training import loop
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event]))
config = vgg16.get_config()
config.update_from_flattened_dict({
    "epochs": 1, "batch_size": 16, "data.name": "cifar10_sample",
    "data.train": "train[:40]", "data.test": "test[:20]",
    "model.variant": "conv3-8 | conv1-8 |",
    "model.hidden": (16,), "model.dtype": "float32", "eval_batch_size": 10,
})
loop.train(config, Path(sys.argv[1]), Console(quiet=True))
name = "/jax/compilation_cache/"
print(seen[name + "compile_requests_use_cache"], seen[name + "cache_hits"])
"""


def python(code, *arguments, **env):
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_second_start_compiles_nothing(tmp_path):
    """Without oneDNN, whose programs jaxlib 0.12 cannot keep."""
    env = {"XDG_CACHE_HOME": str(tmp_path), "XLA_FLAGS": f"{FLAG}=false"}
    asked, found = map(int, python(SECOND_START, tmp_path / "1", **env).split())
    assert asked > found
    asked, found = map(int, python(SECOND_START, tmp_path / "2", **env).split())
    assert asked == found > 0


@pytest.mark.parametrize("bfloat16, known", [(1, 1), (1, 0), (0, 1)])
def test_the_flag_is_set_where_it_serves_and_is_known(bfloat16, known):
    code = (
        "import os; from vgg_jax import backend\n"
        f"backend._has_bfloat16 = lambda: {bool(bfloat16)}\n"
        f"backend._jaxlib_contains = lambda text: {bool(known)}\n"
        "backend.configure(); print(os.environ['XLA_FLAGS'])"
    )
    flags = python(code, XLA_FLAGS="--xla_dump_to=").split()
    assert flags[0] == "--xla_dump_to="
    assert (f"{FLAG}=true" in flags) == bool(bfloat16 and known)


def test_a_choice_of_the_user_wins():
    code = (
        "import os; from vgg_jax import backend\n"
        "backend.configure(); print(os.environ['XLA_FLAGS'])"
    )
    assert python(code, XLA_FLAGS=f"{FLAG}=false").strip() == f"{FLAG}=false"


def test_this_jaxlib_knows_the_flag_and_no_nonsense():
    code = (
        "from vgg_jax import backend\n"
        "print(backend._jaxlib_contains(backend._ONEDNN_FLAG),"
        "backend._jaxlib_contains(b'xla_cpu_' + b'no_such_flag'))"
    )
    assert python(code).split() == ["True", "False"]


FAULTS = """
import ctypes, resource
from vgg_jax import backend
backend.configure()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc.argtypes = [ctypes.c_size_t]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 2**26  # 64 MB, freed at once: 16,384 pages
    blocks = [libc.malloc(2**28) for _ in range(12)]  # 3 GB, not touched
    assert all(blocks)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_kept_unless_the_user_chose():
    assert int(python(FAULTS)) < 1000
    assert int(python(FAULTS, MALLOC_ARENA_MAX="4")) > 16_000
