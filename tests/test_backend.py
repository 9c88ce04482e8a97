"""What is set before JAX starts, in processes of their own."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from vgg_jax import backend, machine
from vgg_jax.nn import draws
from vgg_jax.nn.initializers import INITIALIZERS
from vgg_jax.nn.vgg import VGG

ROOT = Path(__file__).resolve().parents[1]
FLAG = "--xla_cpu_experimental_onednn_custom_call"
YNN = "--xla_cpu_experimental_ynn_fusion_type"

SECOND_START = """
import collections, sys
from pathlib import Path
from vgg_jax import backend
backend._WORTH_KEEPING = 0.0
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
    "model.variant": "conv3-32 | conv1-32 |",
    "model.head": sys.argv[3], "model.dropout": 0.5,
    "model.dtype": sys.argv[2], "eval_batch_size": 10,
})
if sys.argv[3] == "paper":
    config.model.hidden = (64,)
loop.train(config, Path(sys.argv[1]), Console(quiet=True))
name = "/jax/compilation_cache/"
print(seen[name + "compile_requests_use_cache"], seen[name + "cache_hits"])
"""


def run(code, *arguments, **env):
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished


def python(code, *arguments, **env):
    return run(code, *arguments, **env).stdout


@pytest.mark.slow
@pytest.mark.parametrize("head", ["compact", "paper"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_second_start_compiles_nothing(dtype, head, tmp_path):
    """But programs that call oneDNN, which jaxlib 0.12 cannot keep.

    That is Grad-CAM's in bfloat16 where the CPU has no pairs to multiply.
    """
    by_kernels = machine.prefers_kernels(dtype), machine.multiplies_pairs()
    if dtype == "bfloat16" and not all(by_kernels[: 2 if head == "paper" else 1]):
        pytest.skip("no kernels of our own in bfloat16 here")
    env = {"XDG_CACHE_HOME": str(tmp_path), "XLA_FLAGS": ""}
    starts = [
        map(int, python(SECOND_START, tmp_path / n, dtype, head, **env).split())
        for n in "12"
    ]
    (asked, found), (asked_again, found_again) = starts
    assert asked - found > 40 and asked_again == asked
    unkept = int(dtype == "bfloat16" and not machine.multiplies_pairs())
    assert asked_again - found_again == unkept


@pytest.mark.parametrize("bfloat16, known", [(1, 1), (1, 0), (0, 1)])
def test_the_flag_is_set_where_it_serves_and_is_known(bfloat16, known):
    code = (
        "import os; from vgg_jax import backend, machine\n"
        f"machine.has_bfloat16 = lambda: {bool(bfloat16)}\n"
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
    flags = f"{FLAG}=false {YNN}=dot"
    assert python(code, XLA_FLAGS=flags).strip() == flags


def test_this_jaxlib_knows_the_flag_and_no_nonsense():
    code = (
        "from vgg_jax import backend\n"
        "print(backend._jaxlib_contains(backend._ONEDNN_FLAG),"
        "backend._jaxlib_contains(backend._YNN_PRODUCTS),"
        "backend._jaxlib_contains(b'xla_cpu_' + b'no_such_flag'))"
    )
    assert python(code).split() == ["True", "True", "False"]


@pytest.mark.parametrize(
    "device, hardware, kernels, flags, dtype, warned",
    [
        ("gpu", False, False, "", "bfloat16", False),
        ("cpu", False, True, "", "float32", False),
        ("cpu", True, False, f"{FLAG}=true", "bfloat16", False),
        ("cpu", True, False, f"--xla_dump_to= {FLAG}", "bfloat16", False),
        ("cpu", True, False, f"{FLAG}=false", "float32", False),  # the user's choice
        ("cpu", True, False, "--xla_dump_to=", "float32", True),
        ("cpu", True, True, "--xla_dump_to=", "bfloat16", False),
    ],
)
def test_auto_is_the_fast_type(
    device, hardware, kernels, flags, dtype, warned, monkeypatch, caplog
):
    monkeypatch.setattr(backend.jax, "default_backend", lambda: device)
    monkeypatch.setattr(machine, "has_bfloat16", lambda: hardware)
    monkeypatch.setattr(machine, "prefers_kernels", lambda dtype: kernels)
    monkeypatch.setenv("XLA_FLAGS", flags)
    backend._warn_of_slow_bfloat16.cache_clear()
    assert [backend.compute_dtype("auto") for _ in range(2)] == [dtype, dtype]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned


@pytest.mark.parametrize(
    "device, kind, by_kernels, flags, dtype, off",
    [
        ("cpu", "", False, f"{FLAG}=true", "float32", True),
        ("cpu", "", True, f"{FLAG}=true", jax.numpy.bfloat16, False),
        ("cpu", "AVX512", True, f"{FLAG}=true", jax.numpy.bfloat16, True),
        ("cpu", "AVX512", False, f"{FLAG}=true", jax.numpy.bfloat16, False),
        ("cpu", "AVX512", True, f"{FLAG}=false", "bfloat16", False),
        ("cpu", "AVX512", True, "", "float32", False),
        ("gpu", "AVX512", True, f"{FLAG}=true", "float32", False),
    ],
)
def test_what_gains_nothing_does_without_onednn(
    device, kind, by_kernels, flags, dtype, off, monkeypatch
):
    """In float32, or with kernels of our own for all that is large."""
    monkeypatch.setattr(backend.jax, "default_backend", lambda: device)
    monkeypatch.setattr(machine, "kernel_kind", lambda: kind)
    monkeypatch.setattr(machine, "cpu_kind", lambda: "AVX512_BF16")
    monkeypatch.setenv("XLA_FLAGS", flags)
    options = backend.compiler_options(dtype, by_kernels=by_kernels)
    assert options.get(FLAG[2:]) is (False if off else None)
    assert (YNN[2:] in options) == (device == "cpu")


def sums_of_two_halves(x):
    halves = jax.numpy.maximum(x, 0), jax.numpy.maximum(-x, 0)
    first, second = (jax.numpy.sum(h, (1, 2), jax.numpy.float32) for h in halves)
    return first + second


def bfloat16_maps():
    numbers = np.random.default_rng(0).normal(size=(128, 4, 4, 512))
    return jax.numpy.asarray(numbers, jax.numpy.bfloat16)


SUMS = """
import sys
sys.path.insert(0, "tests")
from vgg_jax import backend
options = {}
if sys.argv[1] == "configured":
    backend.configure()
else:
    options = backend.compiler_options("bfloat16")
import jax, test_backend
x = test_backend.bfloat16_maps()
sums = jax.jit(test_backend.sums_of_two_halves, compiler_options=options)(x)
print(abs(sums - abs(x).astype("float32").sum((1, 2))).max() < 1e-3)
"""


@pytest.mark.parametrize("how", ["configured", "options"])
def test_sums_are_right(how):
    """In jaxlib 0.12.0.1 YNN returns nonsense, up to NaN."""
    assert python(SUMS, how, XLA_FLAGS="", JAX_PLATFORMS="cpu").split() == ["True"]


def test_a_choice_of_sums_wins(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{YNN}=dot")
    assert YNN[2:] not in backend.compiler_options("float32")


@pytest.mark.parametrize(
    "table", ["conv3-40 | conv3-64 |", pytest.param("A", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kernel_init", INITIALIZERS)
def test_what_runs_once_has_the_bits_of_what_is_optimised(
    kernel_init, table, monkeypatch
):
    """The initial weights of a seed are not to depend on how fast they are compiled."""
    monkeypatch.setenv("XLA_FLAGS", "")  # the quick tests ask for level 0
    model = VGG(table, 10, head="compact", width=0.25, kernel_init=kernel_init)
    call = (jax.random.key(3), jax.numpy.zeros((1, 32, 32, 3)))
    init = functools.partial(draws.init, model)
    made = []
    for options in (
        backend.options_to_run_once(),
        {"xla_backend_optimization_level": 3},  # XLA's default; the tests' own is 0
    ):
        made.append(jax.jit(init, compiler_options=options)(*call))
    jax.tree.map(np.testing.assert_array_equal, *made)


def test_only_a_cpu_compiles_less(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert backend.options_to_run_once() == {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(backend.jax, "default_backend", lambda: "gpu")
    assert backend.options_to_run_once() == {}


def test_a_level_in_the_environment_wins(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    assert backend.options_to_run_once() == {}


LATE = """
from vgg_jax import backend, machine
machine.has_bfloat16 = lambda: True
machine.prefers_kernels = lambda dtype: False
before = backend._started()
import jax
cpus = jax.config.jax_num_cpu_devices
jax.numpy.zeros(1)
backend.configure()
print(before, backend._started(), cpus == jax.config.jax_num_cpu_devices)
print(backend.compute_dtype("auto"))
"""


def test_too_late_is_said():
    """And without the flag bfloat16 would be slow."""
    finished = run(LATE, XLA_FLAGS="")
    assert finished.stdout.split() == ["False", "True", "True", "float32"]
    first, second = finished.stderr.splitlines()
    assert "configure() was called after JAX had started" in first
    assert '"auto" is float32' in second and "before JAX started" in second


OLD_JAXLIB = """
from vgg_jax import backend, machine
from vgg_jax.cli import command
machine.has_bfloat16 = lambda: True
machine.prefers_kernels = lambda dtype: False
backend._jaxlib_contains = lambda text: False
command.main(["summary", "--config=configs/quickstart.py", "--format=json"])
"""


def test_a_jaxlib_without_the_flag_is_told_by_a_command():
    finished = run(OLD_JAXLIB, XLA_FLAGS="", JAX_PLATFORMS="cpu")
    (line,) = finished.stderr.splitlines()
    assert '"auto" is float32' in line and "lacks the flag" in line
    assert '"layers"' in finished.stdout


@pytest.mark.parametrize(
    "platforms, plugin, expected",
    [
        ("cpu", True, True),
        ("cpu,cuda", True, True),
        ("cuda,cpu", False, False),
        (None, False, True),
        (None, True, False),
    ],
)
def test_the_cpu_is_expected(platforms, plugin, expected, monkeypatch):
    config = SimpleNamespace(jax_platforms=platforms)
    monkeypatch.setattr(backend, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(backend, "find_spec", lambda name: plugin or None)
    assert backend._expects_cpu() == expected


FILLED = """
import sys
from pathlib import Path
from vgg_jax import backend
backend._CACHE_BYTES = 20_000
backend._WORTH_KEEPING = 0.0
backend.configure()
import warnings
warnings.filterwarnings("error", "Error", append=True)  # unless it is ignored
import jax, numpy as np
def compile(n):
    jax.jit(lambda x: (x @ x).sum() + n)(np.ones((n, n), np.float32))
for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12):
    compile(n)
directory = Path(sys.argv[1]) / "vgg_jax" / "xla"
files = list(directory.glob("*-cache")) if directory.is_dir() else []
print(len(files), sum(f.stat().st_size for f in files))
"""


def test_compiled_programs_have_a_size_in_all(tmp_path):
    """JAX's own cache: each of the 12 programs and its constants takes some 3 kB."""
    unlimited = {"JAX_COMPILATION_CACHE_MAX_SIZE": "-1"}
    kept, size = map(int, python(FILLED, tmp_path, XDG_CACHE_HOME=tmp_path).split())
    assert kept > 3 and 10_000 < size <= 20_000
    other = tmp_path / "other"
    every, size = map(
        int, python(FILLED, other, XDG_CACHE_HOME=other, **unlimited).split()
    )
    assert every > kept and size > 20_000


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a directory")
    assert python(FILLED, file, XDG_CACHE_HOME=file).split() == ["0", "0"]


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
    assert int(python(FAULTS, JAX_PLATFORMS="cuda")) > 16_000  # not on the CPU
