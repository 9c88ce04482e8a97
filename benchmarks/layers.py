"""Times every convolution of VGG-16 D at 32 px: `conv.conv2d` beside XLA's own.

The value, the input gradient (dx) and the weight gradient (dw) are timed separately,
the two implementations in turn (A B A B). Printed are the medians in GFLOP/s, which
count the arithmetic of the direct convolution, and the ratio. Both implementations run
with the flags that `backend.configure` sets. (With 2 to 12 images per batch, XLA's
weight gradient in bfloat16 is wrong on AMX with jaxlib 0.12.)

    python -m benchmarks.layers [--batch 128] [--rounds 7]
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from vgg_jax import backend, machine
from vgg_jax.nn.conv import conv2d

LAYERS = (  # map size, channels in, channels out
    (32, 3, 64), (32, 64, 64), (16, 64, 128), (16, 128, 128), (8, 128, 256),
    (8, 256, 256), (4, 256, 512), (4, 512, 512), (2, 512, 512),
)  # fmt: skip
PASSES = ("value", "dx", "dw")
IMPLEMENTATIONS = {"ours": "auto", "xla": "lax"}  # printed name -> `conv2d`'s name


def programs(implementation):
    """Returns the jitted value, input gradient and weight gradient, by pass."""

    def conv(x, w):
        bias = jnp.zeros(w.shape[-1:], w.dtype)
        return conv2d(x, w, bias, implementation=implementation)

    def dx(x, w, g):
        return jax.vjp(lambda x: conv(x, w), x)[1](g)

    def dw(x, w, g):
        return jax.vjp(lambda w: conv(x, w), w)[1](g)

    value = lambda x, w, g: conv(x, w)
    return dict(zip(PASSES, map(jax.jit, (value, dx, dw)), strict=True))


def seconds(program, arrays):
    """Returns how long one call takes."""
    start = time.perf_counter()
    jax.block_until_ready(program(*arrays))
    return time.perf_counter() - start


def measure(layer, dtype, batch, rounds):
    """Returns GFLOP/s by pass and implementation."""
    size, channels, features = layer
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(batch, size, size, channels), (3, 3, channels, features),
              (batch, size, size, features)]  # fmt: skip
    arrays = [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]
    flop = 2 * batch * size**2 * 9 * channels * features
    contestants = {key: programs(name) for key, name in IMPLEMENTATIONS.items()}
    rates = {}
    for name in PASSES:
        times = {key: [] for key in contestants}
        for i in range(rounds + 1):
            for key, passes in contestants.items():
                duration = seconds(passes[name], arrays)
                if i:  # the first round compiles
                    times[key].append(duration)
        rates[name] = {
            key: flop / statistics.median(t) / 1e9 for key, t in times.items()
        }
    return rates


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=128, help="images per batch")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    backend.configure()
    print({k: v for k, v in machine.environment().items() if k != "command"})
    print(f"batch {options.batch}; {' / '.join(IMPLEMENTATIONS)} GFLOP/s and the ratio")
    for dtype in ("float32", "bfloat16"):
        for layer in LAYERS:
            rates = measure(layer, dtype, options.batch, options.rounds)
            cells = (
                f"{name} {rate['ours']:6,.0f} /{rate['xla']:6,.0f} "
                f"{rate['ours'] / rate['xla']:7.2f}x"
                for name, rate in rates.items()
            )
            print(f"{dtype:8} {layer[0]:2} {layer[1]:3}->{layer[2]:3}  ", *cells)


if __name__ == "__main__":
    main()
