"""Times products of matrices in bfloat16 by our kernel, by XLA's own and by oneDNN.

The three of a dense layer: forward, and its gradients by the input and by the kernel.
The ways take turns (A B C, A B C, ...). Printed are the least times of one call.

    python -m benchmarks.matmul [--batches 1,8,128] [--layers 512x4096,4096x4096]
"""

import argparse
import itertools
import time

import jax
import numpy as np

from vgg_jax import backend, machine
from vgg_jax.nn import matmul

_ONEDNN = "xla_cpu_experimental_onednn_custom_call"
# Name -> (the product, whether oneDNN is on).
WAYS = {
    "ours": (matmul.product, False),
    "XLA": (jax.numpy.matmul, False),
    "oneDNN": (jax.numpy.matmul, True),
}


def passes(product):
    """Yields each pass of a layer by its name; the rest of it is not computed."""
    yield "forward", lambda x, w, g: product(x, w)
    yield "by input", lambda x, w, g: jax.vjp(product, x, w)[1](g)[0]
    yield "by kernel", lambda x, w, g: jax.vjp(product, x, w)[1](g)[1]


def measure(batch, inputs, outputs, rounds):
    """Returns the least seconds of a call, by way and pass."""
    numbers = np.random.default_rng(0)
    shapes = (batch, inputs), (inputs, outputs), (batch, outputs)
    arrays = [jax.numpy.asarray(numbers.normal(size=s), "bfloat16") for s in shapes]
    calls = {}
    for way, (product, onednn) in WAYS.items():
        for name, function in passes(product):
            options = {_ONEDNN: onednn}
            compiled = jax.jit(function, compiler_options=options)
            calls[way, name] = compiled.lower(*arrays).compile()
    times = {name: [] for name in calls}
    for _, (name, call) in itertools.product(range(rounds), calls.items()):
        began = time.perf_counter()
        jax.block_until_ready(call(*arrays))
        times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


def batches(text):
    """Reads `1,8,128`."""
    return [int(count) for count in text.split(",")]


def layers(text):
    """Reads `512x4096,4096x10`: inputs and outputs of each."""
    found = [tuple(map(int, layer.split("x"))) for layer in text.split(",")]
    if any(len(layer) != 2 for layer in found):
        raise ValueError
    return found


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=batches, default="1,8,128")
    parser.add_argument("--layers", type=layers, default="512x4096,4096x4096,4096x10")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    backend.configure()
    print(machine.environment(), flush=True)
    for layer, batch in itertools.product(options.layers, options.batches):
        times = measure(batch, *layer, options.rounds)
        for way in WAYS:
            parts = {name: s for (of, name), s in times.items() if of == way}
            told = ", ".join(f"{name} {1e3 * s:6.2f}" for name, s in parts.items())
            total = 1e3 * sum(parts.values())
            print(
                f"batch {batch:3} {layer[0]:5} -> {layer[1]:4}  {way:6} {told} ms, "
                f"together {total:6.2f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
