"""Which machine a program runs on, and what else a result of it depends on."""

import ctypes
import functools
import logging
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax

import vgg_jax

_logger = logging.getLogger(__name__)

_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
# Flag of /proc/cpuinfo -> what it is called here, the fastest first.
_KINDS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512_BF16",
    "avx512f": "AVX512",
    "avx2": "AVX2",
}
_KERNEL_KINDS = {
    "AMX": "AVX512",
    "AVX512_BF16": "AVX512",
    "AVX512": "AVX512",
    "AVX2": "AVX2",
}


def kind() -> str:
    """Returns what the first device multiplies by, which decides what is fast on it.

    That is `cpu_kind` of a CPU; of a GPU or TPU its name.

    >>> isinstance(kind(), str)
    True
    """
    device = jax.devices()[0]
    return cpu_kind() if device.platform == "cpu" else device.device_kind


@functools.cache  # of each convolution that is traced
def cpu_kind() -> str:
    """Returns "AMX", "AVX512_BF16", "AVX512" or "AVX2", the best that this CPU has.

    "" for others, and where it cannot be read. Starts no backend.
    """
    flags = set(_cpuinfo("flags").split())
    return next((name for flag, name in _KINDS.items() if flag in flags), "")


def kernel_kind() -> str:
    """Returns what kernels of our own (`nn/emitted.py`) compute by: "AVX512", "AVX2".

    "" where there are none: on other CPUs, and without a llvmlite that works.
    """
    kind = _KERNEL_KINDS.get(cpu_kind(), "")
    return kind if kind and _compiles() else ""


@functools.cache  # once
def _compiles() -> bool:
    """Returns whether llvmlite is there and its code runs; says so if it does not."""
    if not find_spec("llvmlite"):
        return False
    try:
        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        target = binding.Target.from_default_triple().create_target_machine(jit=True)
        module = binding.parse_assembly("define i32 @seven() { ret i32 7 }")
        engine = binding.create_mcjit_compiler(module, target)
        engine.finalize_object()
        address = engine.get_function_address("seven")
        return ctypes.CFUNCTYPE(ctypes.c_int32)(address)() == 7
    except Exception as error:  # whatever a system forbids, or another version lacks
        _logger.warning(
            "llvmlite %s does not work here (%s): convolutions are XLA's, and slower; "
            "pip install --upgrade 'vgg_jax[cpu]'",
            version("llvmlite"),
            error,
        )
        return False


def prefers_kernels(dtype: str) -> bool:
    """Returns whether there are such kernels that are the fastest in this type.

    AMX multiplies bfloat16 faster than they do.
    """
    return bool(kernel_kind()) and (dtype, cpu_kind()) != ("bfloat16", "AMX")


@functools.cache  # asked of each convolution that is traced
def multiplies_pairs() -> bool:
    """Returns whether the CPU has AVX512_BF16: sums of products of two bfloat16."""
    return "avx512_bf16" in _cpuinfo("flags").split()


def has_bfloat16() -> bool:
    """Returns whether the CPU multiplies bfloat16 in hardware."""
    return not _BFLOAT16_CPU_FLAGS.isdisjoint(_cpuinfo("flags").split())


def describe(count: int = 1) -> str:
    """Returns the devices that are used: the first ones of those that JAX sees.

    That is `2 CPU cores`, say, `NVIDIA H100 80GB HBM3`, `8 NVIDIA H100 80GB HBM3`, or
    `1 of 8 NVIDIA H100 80GB HBM3`.

    Args:
        count: number of devices that are used.
    """
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        cores = _cores()
        kind = f"{cores} CPU core{'s' if cores > 1 else ''}"
    if len(devices) == 1:
        return kind
    used = f"{count}" if count == len(devices) else f"{count} of {len(devices)}"
    several = jax.process_count()
    together = f" in {several} processes" if several > 1 else ""
    on_cpu = devices[0].platform == "cpu"
    return f"{used} {'devices on ' * on_cpu}{kind}{together}"


def environment(count: int = 1) -> dict[str, str]:
    """Returns what a result depends on besides its config.

    Args:
        count: number of devices that are used.

    Returns:
        "device" and "processor", the versions of "python" and of the packages that
        compute, the "command" of this process, and the "commit" of the checkout it runs
        from, which ends with "-dirty" where files differ from it; "" outside one.

    >>> sorted(environment())[:4]
    ['command', 'commit', 'device', 'flax']
    """
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "vgg_jax")
    return {
        "device": describe(count),
        "processor": _cpuinfo("model name") or platform.processor(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "command": _command(),
        "commit": _commit(),
    }


def _command() -> str:
    """Returns the command line of this process as it was typed."""
    program = Path(sys.argv[0])
    if program.name == "vgg":  # the console script, without its directory
        return shlex.join(["vgg", *sys.argv[1:]])
    if program.name == "__main__.py":
        return shlex.join(["python", "-m", "vgg_jax", *sys.argv[1:]])
    benchmarks = Path(vgg_jax.__file__).resolve().parents[1] / "benchmarks"
    if program.parent == benchmarks:
        return shlex.join(["python", "-m", f"benchmarks.{program.stem}", *sys.argv[1:]])
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


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout
        return vgg_jax.__version__ if package == "vgg_jax" else "not installed"


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
