"""Does the input ever starve the step? Step time on real batches and on a resident one.

The training step of a config, in turns of a few steps each: on one batch that stays on
the device; on batches assembled from the split in memory; on batches decoded from disk
by Grain (`data.stream`). Prints milliseconds a step (medians of the turns) and the
ratio to the resident batch, turn by turn.

    python -m benchmarks.input [--config=configs/vgg16.py] [--config.data.name=...]
"""

import statistics
import sys
import time
from functools import partial
from itertools import chain, count

import jax
from absl import app, flags
from ml_collections import config_flags

from vgg_jax import backend
from vgg_jax.data import batches
from vgg_jax.data import datasets as data
from vgg_jax.training import config as config_lib
from vgg_jax.training import recipe, step

_CONFIG = config_flags.DEFINE_config_file("config", "configs/vgg16.py")
_TURNS = flags.DEFINE_integer("turns", 7, "of each input")
_STEPS = flags.DEFINE_integer("steps", 10, "a turn")


def endless(config, split):
    """Training batches, epoch after epoch."""
    how = {"seed": 0, "batch_size": config.batch_size, "start": 0, "remainder": "drop"}
    return chain.from_iterable(
        batches.training(split, epoch=epoch, **how) for epoch in count()
    )


def main(_):
    backend.configure()
    config = config_lib.resolve(_CONFIG.value)
    print(backend.environment())
    size = config.augment.resize
    options = {**config.data, "stream": False}
    memory = data.load(**options, size=size)
    streamed = data.load(**{**options, "stream": True}, size=size)
    steps = batches.steps_per_epoch(len(memory.train), config.batch_size)
    made = recipe.build(config, memory, steps)
    state = step.init(made, seed=0, image_shape=memory.train.image_shape)
    train_step = jax.jit(partial(step.train_step, made), donate_argnums=0)
    resident = jax.device_put(next(endless(config, memory.train)))
    inputs = {
        "resident": iter(lambda: resident, None),
        "memory": endless(config, memory.train),
        "stream": endless(config, streamed.train),
    }
    times = {name: [] for name in inputs}
    for turn in range(_TURNS.value + 1):  # the first one compiles and warms up
        for name, source in inputs.items():
            start = time.perf_counter()
            for _ in range(_STEPS.value):
                state, values = train_step(state, next(source))
            jax.block_until_ready((state, values))
            if turn:
                times[name].append((time.perf_counter() - start) / _STEPS.value)
    for name, taken in times.items():
        pairs = zip(taken, times["resident"], strict=True)
        ratios = sorted(own / base for own, base in pairs)
        print(
            f"{name:10} {1e3 * statistics.median(taken):8.1f} ms a step, "
            f"{statistics.median(ratios):.3f}x resident "
            f"({ratios[0]:.3f} ... {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    app.run(main, sys.argv)
