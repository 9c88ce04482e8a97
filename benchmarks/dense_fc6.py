"""Ways to apply VGG-16's `fc6` to every window of a map: seconds, memory, compile time.

    python -m benchmarks.dense_fc6

`nn.dense` gathers windows column by column, then row by row, and multiplies once. The
alternatives keep fewer windows at a time: a convolution, and a sum of products over
offsets. The maps are those of pictures at Q = 224, 384 and 512.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

import vgg_jax
from vgg_jax import machine

SIDE, CHANNELS, FEATURES = 7, 512, 4096
MAPS = ((1, 7, 7), (1, 12, 12), (4, 12, 16), (4, 16, 21))  # [B, h, w]
RUNS = 5


def sizes(x: jax.Array) -> tuple[int, int]:
    """Returns how many windows there are, down and across."""
    return x.shape[1] - SIDE + 1, x.shape[2] - SIDE + 1


def gathered(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """By columns, then rows, as `nn.dense` does."""
    height, width = sizes(x)
    x = jnp.concatenate([x[:, :, j : j + width] for j in range(SIDE)], -1)
    return jnp.concatenate([x[:, i : i + height] for i in range(SIDE)], -1) @ kernel


def gathered_at_once(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """All 49 offsets in one concatenation."""
    height, width = sizes(x)
    offsets = [(i, j) for i in range(SIDE) for j in range(SIDE)]
    parts = [x[:, i : i + height, j : j + width] for i, j in offsets]
    return jnp.concatenate(parts, -1) @ kernel


def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A VALID convolution."""
    kernel = kernel.reshape(SIDE, SIDE, CHANNELS, FEATURES)
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=dimensions
    )


def summed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One product per row of the window."""
    height, width = sizes(x)
    kernels = kernel.reshape(SIDE, SIDE * CHANNELS, FEATURES)
    x = jnp.concatenate([x[:, :, j : j + width] for j in range(SIDE)], -1)
    return sum(
        (x[:, i : i + height] @ kernels[i] for i in range(1, SIDE)),
        start=x[:, :height] @ kernels[0],
    )


def seconds_each(calls: Sequence[Callable[[], jax.Array]]) -> list[float]:
    """Returns the least seconds of each; they take turns, as other load varies."""
    least = [float("inf")] * len(calls)
    for _ in range(RUNS):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def compare(x: jax.Array, kernel: jax.Array) -> None:
    """Prints a row per way."""
    batch, height, width, _ = x.shape
    wanted, compiled, compiling = WAYS[0](x, kernel), [], []
    for way in WAYS:
        start = time.perf_counter()
        compiled.append(jax.jit(way).lower(x, kernel).compile())
        compiling.append(time.perf_counter() - start)
    seconds = seconds_each([partial(program, x, kernel) for program in compiled])
    for i, (way, program) in enumerate(zip(WAYS, compiled, strict=True)):
        off = jnp.abs(program(x, kernel) - wanted).max() / jnp.abs(wanted).max()
        megabytes = program.memory_analysis().temp_size_in_bytes / 1e6
        print(
            f"{batch}x{height}x{width}  {way.__name__:16}  {seconds[i]:7.3f} s  "
            f"{megabytes:6.0f} MB  compiled in {compiling[i]:5.2f} s  "
            f"off by {float(off):.0e}",
            flush=True,
        )


WAYS = (gathered, gathered_at_once, convolved, summed)


def main():
    vgg_jax.configure()
    print(machine.environment(), flush=True)
    keys = jax.random.split(jax.random.key(0))
    kernel = 0.01 * jax.random.normal(keys[0], (SIDE**2 * CHANNELS, FEATURES))
    for shape in MAPS:
        x = jax.random.normal(keys[1], (*shape, CHANNELS))
        compare(x, kernel)


if __name__ == "__main__":
    main()
