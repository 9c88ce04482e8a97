"""What this machine is, what is chosen for it, and how fast it trains.

    python -m vgg_jax doctor
    python -m vgg_jax doctor --quick

Trains VGG-16 (32 px, batches of 128, random images) for some seconds, in float32 and in
the type that "auto" is. Says which share of the machine's matrix products that is, and
what a machine of its kind reaches when nothing else runs. --quick leaves that out.
"""

import argparse
import importlib.util
import shutil
from collections.abc import Iterator

import jax
from rich.console import Console

from vgg_jax import backend, machine
from vgg_jax.nn.by_xla import F2_KINDS

# Kind of CPU -> type -> the training step's FLOP as a share of matrix products', where
# nothing else runs: Winograd's direct arithmetic counts, so it may exceed 1
# (docs/results.md, "Training and inference beside other frameworks").
REACHED = {
    "AMX": {"bfloat16": 0.62, "float32": 1.36},
    "AVX512_BF16": {"bfloat16": 0.87, "float32": 1.45},
}
_REACHED_FUSED = {"AVX512_BF16": {"bfloat16": 1.30, "float32": 2.48}}  # by our kernels
_SLOW = 0.75  # of what is reached elsewhere: something is wrong
# Part of the program -> a package that it needs, and what installs that.
_PARTS = {
    "training": ("orbax", "train"),
    "convolutions, faster on a CPU": ("llvmlite", "cpu"),
    "reports": ("matplotlib", "report"),
    "StableHLO": ("flatbuffers", "export"),
    "ONNX and pages": ("jax2onnx", "onnx"),
    "Keras files": ("h5py", "interop"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--quick", action="store_true", help="measure no speed")


def run(options: argparse.Namespace) -> None:
    """Prints a line per fact, then the speed in each type."""
    console = Console(highlight=False, soft_wrap=True)
    for name, text in facts():
        console.print(f"{name:<10} {text}", markup=False)
    if not options.quick:
        for dtype in dict.fromkeys(("float32", backend.compute_dtype("auto"))):
            with console.status(f"training VGG-16 in {dtype}"):
                text = measured(dtype)
            console.print(f"{dtype:<10} {text}", markup=False)


def facts() -> Iterator[tuple[str, str]]:
    """Yields what is named, and what it is here."""
    found = machine.environment()
    names = filter(None, (found["device"], found["processor"], machine.kind()))
    yield "machine", ", ".join(names)
    packages = ("python", "vgg_jax", "jax", "jaxlib", "flax", "optax", "numpy")
    yield "versions", ", ".join(f"{name} {found[name]}" for name in packages)
    yield "devices", ", ".join(map(str, jax.devices()))
    yield "dtype=auto", f"is {backend.compute_dtype('auto')}"
    yield "conv=auto", _convolutions()
    yield "programs", f"are kept in {jax.config.jax_compilation_cache_dir}"
    if importlib.util.find_spec("tensorflow_datasets"):
        yield "data sets", _data_sets()
    if shutil.which("nvidia-smi") and jax.default_backend() == "cpu":
        yield "missing", "an NVIDIA GPU is idle here: pip install 'vgg_jax[cuda]'"
    for part, (package, extra) in _PARTS.items():
        if not importlib.util.find_spec(package):
            yield "missing", f"{part}: pip install 'vgg_jax[{extra}]'"


def _data_sets() -> str:
    from vgg_jax.data import stored  # needs [train]

    path = stored.directory()
    if not path.exists():
        return f"will be kept in {path}, which does not exist yet"
    found = sorted(child.name for child in path.glob("*") if child.is_dir())
    if not found:
        return f"are kept in {path}, and none is there yet"
    return f"in {path}: {', '.join(found)}"


def _convolutions() -> str:
    if jax.default_backend() != "cpu":
        return "is XLA's own"
    if machine.prefers_kernels("bfloat16"):
        return f"is Winograd by kernels of our own, of {machine.kernel_kind()}"
    bfloat16 = "by oneDNN" if backend.onednn() else "by XLA, slow on this CPU"
    if machine.cpu_kind() in F2_KINDS:
        bfloat16 += " or Winograd in small tiles"
    float32 = "mostly Winograd in float32"
    if machine.prefers_kernels("float32"):
        float32 = (
            f"Winograd by kernels of our own, of {machine.kernel_kind()}, in float32"
        )
    return f"is direct in bfloat16, {bfloat16}; {float32}"


def measured(dtype: str) -> str:
    """Measures matrix products and the training step, and says how they compare."""
    from vgg_jax.training import speed  # needs [train]

    products = speed.product_rate(dtype)
    images, flop = speed.training_rate(dtype)
    share = images * flop / products
    text = (
        f"VGG-16 trains at {images:,.0f} images/s, {share:.0%} of the "
        f"{products / 1e9:,.0f} GFLOP/s of matrix products"
    )
    fused = _REACHED_FUSED if machine.prefers_kernels(dtype) else {}
    reached = {**REACHED, **fused}.get(machine.kind(), {}).get(dtype)
    if not reached:
        return text
    text += f"; such a machine reaches {reached:.0%} when idle"
    return f"{text}: what else runs here?" if share < _SLOW * reached else text
