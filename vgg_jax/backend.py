"""What JAX needs before it starts, and how its programs are compiled."""

import contextlib
import functools
import logging
import mmap
import os
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import jax
import jaxlib
from jax.typing import DTypeLike

from vgg_jax import files, machine, memory
from vgg_jax.errors import ConfigError

# Sends bfloat16 convolutions on CPU to oneDNN (`benchmarks/layers.py`).
_ONEDNN_FLAG = b"xla_cpu_experimental_onednn_custom_call"
# What XLA:CPU leaves to YNN: products, and by default sums too. jaxlib 0.11 to 0.12.0.1
# returns nonsense for two sums that YNN adds, of bfloat16 maps over their middle axes:
# sum(max(x, 0), (1, 2)) + sum(max(-x, 0), (1, 2)), say (`tests/test_backend.py`).
_YNN_FLAG = "xla_cpu_experimental_ynn_fusion_type"
_YNN_PRODUCTS = b"LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
_CACHE_BYTES = 2_000_000_000  # of compiled programs; least recently used out first
# Seconds of compilation: JAX looks at every program of the cache before it adds one,
# for 0.4 seconds where there are 5,000; most are compiled in a twentieth of that.
_WORTH_KEEPING = 0.2
# Packages by which JAX finds devices other than the CPU.
_PLUGINS = ("jax_plugins", "libtpu")

_logger = logging.getLogger(__name__)


@functools.cache  # once per process: what comes later has no effect
def configure() -> None:
    """Prepares JAX for this machine. Call it before the first array is made.

    Called later, it logs a warning that says what is no longer possible.

    * Turns on oneDNN in XLA_FLAGS on a CPU with bfloat16, if this jaxlib knows the
      flag; an unknown one would abort the process. A choice in XLA_FLAGS wins.
    * Takes sums from YNN, a library that XLA calls on a CPU and that returns nonsense
      for some in bfloat16 (jaxlib 0.12.0.1). A choice in XLA_FLAGS wins.
    * Has glibc keep freed memory, so that each training step can reuse it, where JAX
      will compute on the CPU. GLIBC_TUNABLES and MALLOC_* in the environment win.
    * Keeps programs that took 0.2 seconds to compile for the next start, at most 2 GB
      of them, in `~/.cache/vgg_jax/xla`. JAX_COMPILATION_CACHE_DIR in the environment
      wins, and JAX_COMPILATION_CACHE_MAX_SIZE sets another number of bytes.
    """
    if _started():
        _logger.warning(
            "vgg_jax.configure() was called after JAX had started, too late for XLA's "
            "flags and for malloc: call it before the first array is made"
        )
    else:
        _turn_on_onednn()
        if _knows_ynn():
            _add_flag(_YNN_FLAG, "-reduce")
        if _expects_cpu():
            memory.keep_freed()
    if not jax.config.jax_compilation_cache_dir:
        with contextlib.suppress(ConfigError):  # there is no home: nothing is kept
            kept = str(files.cache_directory() / "xla")
            jax.config.update("jax_compilation_cache_dir", kept)
        if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
            jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # jaxlib 0.12 cannot serialise a program with a oneDNN call: such ones are compiled
    # at every start (`compiler_options` says which of ours do without).
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
    if machine.has_bfloat16() and _jaxlib_contains(_ONEDNN_FLAG):
        _add_flag(_ONEDNN_FLAG.decode(), "true")


def _knows_ynn() -> bool:
    return all(map(_jaxlib_contains, (_YNN_FLAG.encode(), _YNN_PRODUCTS)))


def _add_flag(name: str, value: str) -> None:
    """Adds a flag to XLA_FLAGS, unless they have it."""
    flags = os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{name}={value}".strip()


def _expects_cpu() -> bool:
    """Returns whether JAX will compute on the CPU: as told, or for lack of a plugin."""
    told = jax.config.jax_platforms
    if told:
        return told.partition(",")[0] == "cpu"
    return not any(find_spec(name) for name in _PLUGINS)


@functools.cache
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
    AMX), float32 elsewhere. With neither kernels of our own (`nn/fused.py`) nor oneDNN
    (`configure`) bfloat16 would be slow on such a CPU: "auto" is float32 then, and a
    warning is logged unless XLA_FLAGS says so.

    >>> compute_dtype("float32")
    'float32'
    """
    if name != "auto":
        return name
    if jax.default_backend() != "cpu":
        return "bfloat16"
    if not machine.has_bfloat16():
        return "float32"
    if machine.prefers_kernels("bfloat16"):
        return "bfloat16"
    if onednn() is None:
        _warn_of_slow_bfloat16()
    return "bfloat16" if onednn() else "float32"


def compiler_options(
    dtype: DTypeLike, platform: str = "", *, by_kernels: bool = False
) -> dict[str, bool | str]:
    """Returns the options with which `jax.jit` compiles a program of ours.

    On a CPU it does without oneDNN, even where XLA_FLAGS turns it on, if it gains
    nothing by it: in float32, and where kernels of our own (`nn/fused.py`) do what is
    large. Then the next start finds the program compiled. YNN sums nothing, as
    `configure` says, which need not have been called.

    Args:
        dtype: the type that the program computes in.
        platform: of the devices that it is compiled for; "": where JAX computes.
        by_kernels: whether it is on one device and of a network all of whose large
            layers have kernels of our own (`VGG.is_by_kernels`): of others oneDNN is
            faster, by `fc6` and `fc7` twice as fast.

    >>> compiler_options("bfloat16", platform="tpu")
    {}
    """
    if (platform or jax.default_backend()) != "cpu":
        return {}
    name = jax.numpy.dtype(dtype).name
    options: dict[str, bool | str] = {}
    is_told = _YNN_FLAG in os.environ.get("XLA_FLAGS", "")
    if not is_told and _knows_ynn():
        options[_YNN_FLAG] = _YNN_PRODUCTS.decode()
    by_ours = by_kernels and machine.prefers_kernels(name)
    if onednn() and (name == "float32" or by_ours):
        options[_ONEDNN_FLAG.decode()] = False
    return options


def options_to_run_once() -> dict[str, int]:
    """Returns the options with which `jax.jit` compiles a program that runs once.

    On a CPU LLVM optimises it less, since initial weights take far longer to compile
    than to compute. Their bits are the same (`tests/test_backend.py`); with no
    optimisation at all they would not be. A level in XLA_FLAGS wins.
    """
    level = "xla_backend_optimization_level"
    if jax.default_backend() != "cpu" or level in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {level: 1}


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
        why = f"jaxlib {machine.version('jaxlib')} lacks the flag that turns oneDNN on"
    _logger.warning(
        '"auto" is float32: this CPU multiplies bfloat16, but %s, and without it '
        "bfloat16 takes three times as long",
        why,
    )
