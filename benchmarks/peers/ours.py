"""vgg_jax: the product's own `train_step` and network, nothing else.

On CPU it waits for each step and gives memory back, as `training/loop.py` does.
"""

import itertools
from functools import partial

import jax
import numpy as np
from serve import jax_memory, read_job, serve

from vgg_jax import backend, memory
from vgg_jax import mesh as meshes
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.nn.vgg import VGG, prepared
from vgg_jax.training import step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

backend.configure()


def build(job):
    """Returns `steps(n)`, which runs n steps, and `compiled()`, the program it runs."""
    batch_size, size = job["batch"], job["size"]
    recipe = step.Recipe(
        model=VGG(
            variant=job["variant"],
            num_classes=10,
            width=job["width"],
            batch_norm=job["batch_norm"],
            head="compact",
            dtype=job["dtype"],
            remat=job.get("remat", "none"),
        ),
        augment=Augment(normalize="cifar10"),
        optimizer=SGD().transformation(),
        schedule=lambda _: 1e-3,
        shards=job.get("shards", 1),
    )
    init = partial(step.init, recipe, seed=0, image_shape=(size, size, 3))
    state = jax.jit(init)()
    numbers = np.random.default_rng(0)
    batch = jax.device_put(
        TrainingBatch(
            images=numbers.integers(0, 256, (batch_size, size, size, 3), np.uint8),
            labels=numbers.integers(0, 10, batch_size).astype(np.int32),
            index=np.arange(batch_size, dtype=np.int32),
            epoch=np.int32(0),
        )
    )
    train, _ = step.compiled(recipe, meshes.over(1))
    infer = jax.jit(recipe.model.apply)
    images = recipe.augment.evaluate(batch.images)

    on_cpu, made = jax.default_backend() == "cpu", itertools.count()

    def train_steps(n):
        nonlocal state
        for _ in range(n):
            state, metrics = train(state, batch)
            if on_cpu:
                jax.block_until_ready(metrics)
                if next(made) < 3 or memory.is_short():
                    memory.give_back()
        jax.block_until_ready((state, metrics))

    def infer_steps(n):
        for _ in range(n):
            logits = infer(weights, images)
        jax.block_until_ready(logits)

    if job["mode"] == "train":
        return train_steps, lambda: train.lower(state, batch).compile()
    # As an evaluation of a run does.
    weights = prepared(recipe.model, state.variables, (batch_size, size, size))
    return infer_steps, lambda: infer.lower(weights, images).compile()


if __name__ == "__main__":
    job = read_job()
    steps, _ = build(job)
    serve(steps, jax_memory)
