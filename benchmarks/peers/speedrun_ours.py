"""A config on its own data.

Job: `config`, nested as in `config.json`; `seed`; `mode`; `workdir`. Mode "serve"
answers as every peer does, with training steps; mode "train" trains to the end in the
workdir and prints the test accuracy.
"""

import contextlib
import dataclasses
import json
import sys
from functools import partial

import jax
from ml_collections import ConfigDict
from serve import read_job, serve

from benchmarks.input import endless
from vgg_jax import backend, mesh
from vgg_jax.data import batches, datasets, on_device
from vgg_jax.training import config as config_module
from vgg_jax.training import loop, recipe, step

backend.configure()


def train(config, workdir):
    """Trains to the end; returns the test accuracy."""
    with contextlib.redirect_stdout(sys.stderr):
        result = loop.train(config, workdir)
    return {"accuracy": result["test"]["accuracy"]}


def time_steps(config):
    """Serves training steps."""
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


def main():
    job = read_job()
    fields = {**job["config"], "seed": job["seed"]}
    if job["mode"] == "train":
        print(json.dumps(train(ConfigDict(fields), job["workdir"])))
    else:
        time_steps(config_module.build(fields))


main()
