"""Measures whether the training step ever waits for its input.

Times the training step of a config, in turns of a few steps each: on one batch that
stays on the device; on batches assembled from the split in memory; on batches that
Grain decodes from disk (`data.stream`). Prints the median of the ms per step over the
turns, and the ratio to the resident batch of the same turn (median, least, most).

    python -m benchmarks.input
    python -m benchmarks.input --config=configs/quickstart.py --config.batch_size=128
"""

import argparse
import dataclasses
import statistics
import time
from itertools import count, repeat

import jax

from vgg_jax import backend, machine
from vgg_jax import mesh as meshes
from vgg_jax.cli import config_file
from vgg_jax.data import batches, datasets
from vgg_jax.errors import guarded
from vgg_jax.training import recipe, step
from vgg_jax.training.config import resolve


def endless(split, batch_size):
    """Yields training batches, epoch after epoch."""
    for epoch in count():
        yield from batches.training(
            split,
            seed=0,
            batch_size=batch_size,
            epoch=epoch,
            start=0,
            remainder="drop",
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="configs/vgg16.py")
    parser.add_argument("--turns", type=int, default=7, help="turns per input")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn")
    options, settings = parser.parse_known_args()
    backend.configure()
    config = resolve(config_file.load(options.config, settings))
    print(machine.environment())
    source = dataclasses.asdict(config.data) | {"size": config.augment.resize}
    memory = datasets.load(**source | {"stream": False})
    streamed = datasets.load(**source | {"stream": True})
    steps_per_epoch = batches.steps_per_epoch(len(memory.train), config.batch_size)
    run_recipe = recipe.build(config, memory, steps_per_epoch)
    state = step.init(run_recipe, seed=0, image_shape=memory.train.image_shape)
    train_step, _ = step.compiled(run_recipe, meshes.over(1))
    from_memory = endless(memory.train, config.batch_size)
    inputs = {
        "resident": repeat(jax.device_put(next(from_memory))),
        "memory": from_memory,
        "stream": endless(streamed.train, config.batch_size),
    }
    times = {name: [] for name in inputs}
    for turn in range(options.turns + 1):  # the first one compiles and warms up
        for name, input_batches in inputs.items():
            start = time.perf_counter()
            for _ in range(options.steps):
                state, metrics = train_step(state, next(input_batches))
            jax.block_until_ready((state, metrics))
            if turn:
                times[name].append((time.perf_counter() - start) / options.steps)
    for name, seconds in times.items():
        pairs = zip(seconds, times["resident"], strict=True)
        ratios = sorted(input_seconds / resident for input_seconds, resident in pairs)
        print(
            f"{name:10} {1e3 * statistics.median(seconds):8.1f} ms per step, "
            f"{statistics.median(ratios):.3f}x resident "
            f"({ratios[0]:.3f} ... {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    guarded(main)
