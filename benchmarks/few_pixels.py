"""Times convolutions of few pixels by prepared kernels, without tiles and by tiles.

The layers of VGG-16 D at 32 px, in turn (A B A B), on kernels that take turns, as many
as no cache holds. Printed are the least times of one call, their ratio, and a star
where `fused.is_direct` chooses the first.

    python -m benchmarks.few_pixels [--batches 1,2,4,8,16] [--width 1]
"""

import argparse
import itertools
import time
from functools import partial

import jax
import numpy as np

from benchmarks.layers import LAYERS
from vgg_jax import backend, machine
from vgg_jax.nn import fused

_BYTES = 64e6  # of kernels that take turns: more than caches hold
_AT_MOST = 12  # such kernels

WAYS = {
    "direct": lambda shape, w: fused.panels(w),
    "tiles": partial(fused.transformed, flipped=False),
}


def least(calls, rounds):
    """Returns the least seconds of one call, by name, of calls that take turns."""
    times = {name: [] for name in calls}
    for _, (name, call) in itertools.product(range(rounds), calls.items()):
        began = time.perf_counter()
        count = call()
        times[name].append((time.perf_counter() - began) / count)
    return {name: min(found) for name, found in times.items()}


def measure(layer, batch, width, dtype, rounds):
    """Returns (least seconds by way, whether direct is chosen)."""
    size, *channels = layer
    inputs, outputs = (max(1, int(n * width)) for n in channels)
    numbers = np.random.default_rng(0)
    normal = lambda *shape: jax.numpy.asarray(numbers.normal(size=shape), dtype)
    x, b = normal(batch, size, size, inputs), normal(outputs)
    one = normal(3, 3, inputs, outputs)
    copies = min(_AT_MOST, 1 + int(_BYTES / one.nbytes))
    program = jax.jit(lambda x, w, b, u: fused.conv3x3(x, w, b, u))
    calls = {}
    for name, ordered in WAYS.items():
        made = jax.jit(partial(ordered, x.shape))
        kernels = [made(one + i) for i in range(copies)]

        def call(kernels=kernels):
            ends = [program(x, one, b, u) for u in kernels]
            jax.block_until_ready(ends)
            return len(ends)

        call()
        calls[name] = call
    return least(calls, rounds), fused.is_direct(x.shape, one)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", default="1,2,4,8,16")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    backend.configure()
    print(machine.environment(), flush=True)
    batches = map(int, options.batches.split(","))
    layers = [layer for layer in LAYERS if layer[1] > 3]
    dtypes = ["bfloat16"] * machine.multiplies_pairs() + ["float32"]
    for dtype, batch, layer in itertools.product(dtypes, batches, layers):
        times, chosen = measure(layer, batch, options.width, dtype, options.rounds)
        direct, tiles = (1e3 * times[name] for name in WAYS)
        size, inputs, outputs = layer
        print(
            f"{dtype:8} batch {batch:3} {size:2} px {inputs:3} -> {outputs:3}  "
            f"{direct:7.3f} ms, by tiles {tiles:7.3f} ms, {tiles / direct:5.2f}x"
            f"{' *' * chosen}",
            flush=True,
        )


if __name__ == "__main__":
    main()
