"""What JAX needs before it starts, and which machine it starts on."""

import ctypes
import functools
import logging
import mmap
import os
import platform
import re
import shlex
import subprocess
import sys
import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax
import jaxlib
from jax.typing import DTypeLike

import vgg_jax
from vgg_jax import files

# Sends bfloat16 convolutions on CPU to oneDNN (`benchmarks/layers.py`).
_ONEDNN_FLAG = b"xla_cpu_experimental_onednn_custom_call"
# M_MMAP_MAX, M_TRIM_THRESHOLD (-1: never give memory back), M_ARENA_MAX of glibc's
# malloc.h.
_MALLOPT = ((-4, 0), (-1, -1), (-8, 1))
_CACHE_BYTES = 2_000_000_000  # of compiled programs; least recently used out first
_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
# Flag of /proc/cpuinfo -> what it is called here, the fastest first.
_KINDS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512_BF16",
    "avx512f": "AVX512",
    "avx2": "AVX2",
}
# Packages by which JAX finds devices other than the CPU.
_PLUGINS = ("jax_plugins", "libtpu")

_logger = logging.getLogger(__name__)


@functools.cache  # once per process: what comes later has no effect
def configure() -> None:
    """Prepares JAX for this machine. Call it before the first array is made.

    Called later, it logs a warning that says what is no longer possible.

    * Turns on oneDNN in XLA_FLAGS on a CPU with bfloat16, if this jaxlib knows the
      flag; an unknown one would abort the process. A choice in XLA_FLAGS wins.
    * Has glibc keep freed memory, so that each training step can reuse it, where JAX
      will compute on the CPU. GLIBC_TUNABLES and MALLOC_* in the environment win.
    * Keeps compiled programs for the next start, at most 2 GB of them, in
      `~/.cache/vgg_jax/xla`. JAX_COMPILATION_CACHE_DIR in the environment wins, and
      JAX_COMPILATION_CACHE_MAX_SIZE sets another number of bytes.
    """
    if _started():
        _logger.warning(
            "vgg_jax.configure() was called after JAX had started, too late for XLA's "
            "flags and for malloc: call it before the first array is made"
        )
    else:
        _turn_on_onednn()
        if _expects_cpu():
            _keep_freed_memory()
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update(
            "jax_compilation_cache_dir", str(files.cache_directory() / "xla")
        )
        if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
            jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # jaxlib 0.12 cannot serialise a program with a oneDNN call: ours in bfloat16 are
    # compiled at every start (those in float32 do without, see `compiler_options`).
    # Where the cache cannot be written, its lock cannot be taken to read it either.
    for what in ("reading", "writing"):
        warnings.filterwarnings("ignore", f"Error {what} persistent compilation cache")


def _started() -> bool:
    """Returns whether JAX has a backend, without starting one.

    `jax_num_cpu_devices` is an option that JAX refuses to change from then on.
    """
    before = jax.config.jax_num_cpu_devices
    try:
        jax.config.update("jax_num_cpu_devices", 2 if before == 1 else 1)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", before)
    return False


def _turn_on_onednn() -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    name = _ONEDNN_FLAG.decode()
    wanted = _has_bfloat16() and name not in flags
    if wanted and _jaxlib_contains(_ONEDNN_FLAG):
        os.environ["XLA_FLAGS"] = f"{flags} --{name}=true".strip()


def _expects_cpu() -> bool:
    """Returns whether JAX will compute on the CPU: as told, or for lack of a plugin."""
    told = jax.config.jax_platforms
    if told:
        return told.partition(",")[0] == "cpu"
    return not any(find_spec(name) for name in _PLUGINS)


def _keep_freed_memory() -> None:
    """Lets each step reuse the memory of the last one without asking the kernel.

    By default glibc returns large buffers as soon as they are freed, and every step
    pays for page faults (`docs/results.md`: 566 ms with them, 511 without). A higher
    limit is not enough, as the buffers of a large step exceed it. There is one arena
    only, because the empty arena of a thread is unmapped too. Settings in the
    environment (GLIBC_TUNABLES, MALLOC_*) win; other C libraries are left alone.
    """
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    tuned = tuned or any(name.startswith("MALLOC_") for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in _MALLOPT:
        mallopt(parameter, value)


def _jaxlib_contains(text: bytes) -> bool:
    """Returns whether jaxlib's library contains `text`, as it does names of flags."""
    for library in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with open(library, "rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return data.find(text) >= 0
    return False


def compute_dtype(name: str) -> str:
    """Returns the type that "auto" stands for on this machine; other names stay.

    "auto" is bfloat16 on GPU, TPU and CPUs that multiply it in hardware (AVX512_BF16,
    AMX), float32 elsewhere. Without oneDNN (`configure`) bfloat16 would be slow on such
    a CPU: "auto" is float32 then, and a warning is logged unless XLA_FLAGS says so.

    >>> compute_dtype("float32")
    'float32'
    """
    if name != "auto":
        return name
    if jax.default_backend() != "cpu":
        return "bfloat16"
    if not _has_bfloat16():
        return "float32"
    if onednn() is None:
        _warn_of_slow_bfloat16()
    return "bfloat16" if onednn() else "float32"


def compiler_options(dtype: DTypeLike) -> dict[str, bool]:
    """Returns the options with which `jax.jit` compiles a program of ours.

    One in float32 does without oneDNN on a CPU, even where XLA_FLAGS turns it on: it
    gains nothing by it, and without it the next start finds the program compiled.

    Args:
        dtype: the type that the program computes in.

    >>> compiler_options("bfloat16")
    {}
    """
    single = jax.numpy.dtype(dtype) == jax.numpy.float32
    if not single or jax.default_backend() != "cpu" or not onednn():
        return {}
    return {_ONEDNN_FLAG.decode(): False}


def onednn() -> bool | None:
    """Returns whether XLA_FLAGS turns oneDNN on or off; None: they say nothing.

    >>> onednn() in (True, False, None)
    True
    """
    flags = os.environ.get("XLA_FLAGS", "")
    said = re.findall(rf"{_ONEDNN_FLAG.decode()}(?:=(\w+))?", flags)
    return said[-1].lower() not in ("false", "0") if said else None


@functools.cache  # once
def _warn_of_slow_bfloat16() -> None:
    why = "vgg_jax.configure() did not turn oneDNN on before JAX started"
    if not _jaxlib_contains(_ONEDNN_FLAG):
        why = f"jaxlib {_version('jaxlib')} lacks the flag that turns oneDNN on"
    _logger.warning(
        '"auto" is float32: this CPU multiplies bfloat16, but %s, and without it '
        "bfloat16 takes three times as long",
        why,
    )


def _has_bfloat16() -> bool:
    """Returns whether the CPU multiplies bfloat16 in hardware."""
    return not _BFLOAT16_CPU_FLAGS.isdisjoint(_cpuinfo("flags").split())


def kind() -> str:
    """Returns what a CPU multiplies by, which decides what is fast on it.

    That is "AMX", "AVX512_BF16", "AVX512" or "AVX2", the best that it has; "" for
    others, and where it cannot be read. A GPU's or TPU's is its name.

    >>> isinstance(kind(), str)
    True
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    flags = set(_cpuinfo("flags").split())
    return next((name for flag, name in _KINDS.items() if flag in flags), "")


def _cpuinfo(key: str) -> str:
    """Returns an entry of /proc/cpuinfo for the first processor; "" if not on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    values = (x.split(":", 1)[1].strip() for x in lines if x.startswith(key))
    return next(values, "")


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> str:
    """Returns the device that a run uses: the first, however many JAX sees.

    That is `2 CPU cores`, say, `NVIDIA H100 80GB HBM3`, or `1 of 8 NVIDIA H100 80GB
    HBM3`.
    """
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        cores = _cores()
        kind = f"{cores} CPU core{'s' if cores > 1 else ''}"
        return kind if len(devices) == 1 else f"1 of {len(devices)} devices on {kind}"
    return kind if len(devices) == 1 else f"1 of {len(devices)} {kind}"


def environment() -> dict[str, str]:
    """Returns what a result depends on besides its config.

    Returns:
        "device" and "processor", the versions of "python" and of the packages that
        compute, the "command" of this process, and the "commit" of the checkout it runs
        from, which ends with "-dirty" where files differ from it; "" outside one.

    >>> sorted(environment())[:4]
    ['command', 'commit', 'device', 'flax']
    """
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "vgg_jax")
    return {
        "device": describe(),
        "processor": _cpuinfo("model name") or platform.processor(),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "command": _command(),
        "commit": _commit(),
    }


def _command() -> str:
    """Returns the command line of this process as it was typed."""
    program = Path(sys.argv[0]).name
    if program == "vgg":  # the console script, without its directory
        return shlex.join(["vgg", *sys.argv[1:]])
    if program == "__main__.py":
        return shlex.join(["python", "-m", "vgg_jax", *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


def _commit() -> str:
    root = Path(vgg_jax.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(
            [*command, "--abbrev=40"], capture_output=True, text=True
        )
    except OSError:  # no git
        return ""
    return described.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout
        return vgg_jax.__version__ if package == "vgg_jax" else "not installed"
