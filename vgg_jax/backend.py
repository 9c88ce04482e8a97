"""What JAX needs before it starts, and which machine it starts on."""

import ctypes
import mmap
import os
import platform
import shlex
import sys
import warnings
from importlib import metadata
from pathlib import Path

import jax
import jaxlib

import vgg_jax
from vgg_jax import files

# Sends bfloat16 convolutions on CPU to oneDNN (`benchmarks/layers.py`).
_ONEDNN_FLAG = b"xla_cpu_experimental_onednn_custom_call"
# M_MMAP_MAX, M_TRIM_THRESHOLD (-1: never give memory back), M_ARENA_MAX of glibc's
# malloc.h.
_MALLOPT = ((-4, 0), (-1, -1), (-8, 1))
_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def configure() -> None:
    """Prepares JAX for this machine. Call it before the first array is made.

    * Turns on oneDNN in XLA_FLAGS on a CPU with bfloat16, if this jaxlib knows the
      flag; an unknown one would abort the process. A choice in XLA_FLAGS wins.
    * Has glibc keep freed memory, so that each training step can reuse it.
      GLIBC_TUNABLES and MALLOC_* in the environment win.
    * Keeps compiled programs for the next start, in `~/.cache/vgg_jax/xla` or wherever
      JAX_COMPILATION_CACHE_DIR says.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    name = _ONEDNN_FLAG.decode()
    wanted = _has_bfloat16() and name not in flags
    if wanted and _jaxlib_contains(_ONEDNN_FLAG):
        os.environ["XLA_FLAGS"] = f"{flags} --{name}=true".strip()
    _keep_freed_memory()
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update(
            "jax_compilation_cache_dir", str(files.cache_directory() / "xla")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # jaxlib 0.12 cannot serialise oneDNN's convolutions: programs with one (bfloat16
    # and a few float32 ones, on a CPU with the flag) are compiled at every start.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache")


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
    AMX), float32 elsewhere.

    >>> compute_dtype("float32")
    'float32'
    """
    if name != "auto":
        return name
    fast = _has_bfloat16() or jax.default_backend() != "cpu"
    return "bfloat16" if fast else "float32"


def _has_bfloat16() -> bool:
    """Returns whether the CPU multiplies bfloat16 in hardware."""
    return not _BFLOAT16_CPU_FLAGS.isdisjoint(_cpuinfo("flags").split())


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
    """Returns the devices in a few words: `2 CPU cores`, `4x NVIDIA H100`."""
    if jax.default_backend() == "cpu":
        cores = _cores()
        return f"{cores} CPU core{'s' if cores > 1 else ''}"
    return f"{jax.device_count()}x {jax.devices()[0].device_kind}"


def environment() -> dict[str, str]:
    """Returns what a result depends on besides its config.

    Returns:
        "device" and "processor", the versions of "python" and of the packages that
        compute, and the "command" of this process.

    >>> sorted(environment())[:4]
    ['command', 'device', 'flax', 'jax']
    """
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "vgg_jax")
    return {
        "device": describe(),
        "processor": _cpuinfo("model name") or platform.processor(),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "command": _command(),
    }


def _command() -> str:
    """Returns the command line of this process as it was typed."""
    program = Path(sys.argv[0]).name
    if program == "vgg":  # the console script, without its directory
        return shlex.join(["vgg", *sys.argv[1:]])
    if program == "__main__.py":
        return shlex.join(["python", "-m", "vgg_jax", *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout
        return vgg_jax.__version__ if package == "vgg_jax" else "not installed"
