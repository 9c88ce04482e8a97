"""Exported networks beside JAX on all 10,000 test images of CIFAR-10.

    TFDS_DATA_DIR=... benchmarks/envs/export/bin/python -m benchmarks.export_parity \\
        --weights=speedrun > results/export/parity.txt

ONNX in both layouts by onnxruntime, StableHLO as read back from its file, on CPU, in
float32, beside what `vgg_jax.load(...)(images)` computes. XLA's own convolutions, which
StableHLO has, are slow on a CPU: `--lax` sets how many images they see. A top-1 that
differs counts where JAX's two largest logits are further apart than twice the limit.
Ends with status 1 where a number is over its limit.
"""

import argparse
import importlib
import importlib.metadata
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vgg_jax
from vgg_jax.data import datasets
from vgg_jax.interop import onnx_file, stablehlo
from vgg_jax.interop.classifier import LAYOUTS, OUTPUTS
from vgg_jax.interop.network import Network

LIMIT = 1e-4  # of logits, and of probabilities
BATCH = 100
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Answers(NamedTuple):
    """Logits and probabilities, `[N, classes]`, and the seconds that they took."""

    logits: np.ndarray
    probabilities: np.ndarray
    seconds: float


def main() -> None:
    """Prints one row per exported form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--lax", type=int, default=10_000)
    options = parser.parse_args()
    vgg_jax.configure()
    network = vgg_jax.load(options.weights).configured(dtype=jnp.float32)
    test, *_ = datasets.one_split(options.data, "test")
    images, labels = np.asarray(test.images), np.asarray(test.labels)
    want = everywhere(_jax(network), images)
    _print_head(network, want, labels)
    worst = 0.0
    for name, run, slow in forms(network):
        count = options.lax if slow else len(images)
        worst = max(worst, _print_row(name, everywhere(run, images[:count]), want))
    print(f"\nThe largest absolute differences over all images; the limit is {LIMIT}.")
    sys.exit(1 if worst > LIMIT else 0)


def _print_head(network: Network, want: Answers, labels: np.ndarray) -> None:
    print(f"VGG {network.model.variant}, SHA-256 {network.sha256[:16]}")
    names = ("jax", "jax2onnx", "onnx", "onnxruntime")
    print(", ".join(f"{n} {importlib.metadata.version(n)}" for n in names))
    right = (want.probabilities.argmax(-1) == labels).mean()
    span = f"{want.logits.min():.1f} to {want.logits.max():.1f}"
    print(
        f"{len(labels):,} images, {(~_clear(want)).sum()} within {2 * LIMIT} of a tie"
    )
    speed = len(labels) / want.seconds
    print(f"JAX: top-1 {right:.2%}, logits from {span}, {speed:,.0f} images/s\n")
    columns = f"{'images':>8}{'logits':>10}{'probab.':>10}{'other top-1':>13}"
    print(f"{'':<14}{columns}{'images/s':>10}", flush=True)


def _print_row(name: str, found: Answers, want: Answers) -> float:
    """Returns the largest difference; infinity where a top-1 has changed."""
    count = len(found.probabilities)
    logits = float(np.abs(found.logits - want.logits[:count]).max())
    off = float(np.abs(found.probabilities - want.probabilities[:count]).max())
    first, wanted = (x.probabilities[:count].argmax(-1) for x in (found, want))
    other = int(((first != wanted) & _clear(want)[:count]).sum())
    numbers = f"{count:>8,}{logits:>10.1e}{off:>10.1e}{other:>13}"
    print(f"{name:<14}{numbers}{count / found.seconds:>10,.0f}", flush=True)
    return np.inf if other else max(off, np.nan_to_num(logits))


def _clear(want: Answers) -> np.ndarray:
    """Returns which images are not within twice the limit of a tie."""
    ranked = np.sort(want.logits, -1)
    return ranked[:, -1] - ranked[:, -2] > 2 * LIMIT


def everywhere(run: Run, images: np.ndarray) -> Answers:
    """Runs a network on all images; what compiles first is not counted."""
    run(images[:BATCH])
    begin = time.perf_counter()
    parts = [run(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    seconds = time.perf_counter() - begin
    logits, probabilities = map(np.concatenate, zip(*parts, strict=True))
    return Answers(logits, probabilities, seconds)


def forms(network: Network) -> Iterator[tuple[str, Run, bool]]:
    """Name, how to run it, and whether it has XLA's own convolutions."""
    runtime = importlib.import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as directory:
        for layout in LAYOUTS:
            path = Path(directory) / f"{layout}.onnx"
            onnx_file.save(network, path, layout=layout)
            session = runtime.InferenceSession(path)
            yield f"ONNX, {layout}", _onnx(session, layout), False
        path = Path(directory) / "net.zip"
        stablehlo.save(network, path)
        with zipfile.ZipFile(path) as file:
            content = bytearray(file.read(stablehlo.PROGRAM))
    yield "StableHLO", _without_logits(jax.export.deserialize(content).call), True
    yield "JAX, lax", _jax(network.configured(conv="lax")), True


def _jax(network: Network) -> Run:
    def run(images):
        logits = network(images)
        return np.asarray(logits), np.asarray(jax.nn.softmax(logits))

    return run


def _without_logits(call: Callable[[np.ndarray], jax.Array]) -> Run:
    def run(images):
        probabilities = np.asarray(call(images))
        return np.full_like(probabilities, np.nan), probabilities

    return run


def _onnx(session, layout: str) -> Run:
    turned = (0, 3, 1, 2) if layout == "nchw" else (0, 1, 2, 3)
    return lambda images: session.run([*OUTPUTS], {"images": images.transpose(turned)})


if __name__ == "__main__":
    main()
