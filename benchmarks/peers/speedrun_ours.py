"""The training step of a config on its own data.

Job: `config`, nested as in `config.json`.
"""

import dataclasses
from functools import partial

import jax
from serve import read_job, serve

from benchmarks.input import endless
from vgg_jax import backend, mesh
from vgg_jax.data import batches, datasets, on_device
from vgg_jax.training import config as config_module
from vgg_jax.training import recipe, step

backend.configure()


def main():
    config = config_module.build(read_job()["config"])
    source = dataclasses.asdict(config.data)
    dataset = datasets.load(**source, report=lambda text: None)
    steps_per_epoch = batches.steps_per_epoch(len(dataset.train), config.batch_size)
    run_recipe = recipe.build(config, dataset, steps_per_epoch)
    shape = dataset.train.image_shape
    state = jax.jit(partial(step.init, run_recipe, seed=0, image_shape=shape))()
    split, devices = dataset.train, mesh.over(1)
    train_step, _ = step.compiled(run_recipe, devices)
    if on_device.fits(split, devices):
        split = on_device.placed(split, devices)
    training_batches = endless(split, config.batch_size)

    def steps(n):
        nonlocal state
        for _ in range(n):
            state, metrics = train_step(state, next(training_batches))
        jax.block_until_ready((state, metrics))

    serve(steps)


main()
