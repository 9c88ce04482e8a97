"""The training step of a config on its own data, a step at a time."""

from functools import partial
from itertools import chain, count

from serve import job, serve

from vgg_jax import backend

backend.configure()

import jax  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from vgg_jax.data import batches  # noqa: E402
from vgg_jax.data import datasets as data  # noqa: E402
from vgg_jax.training import recipe, step  # noqa: E402


def main():
    config = ConfigDict(job()["config"])
    dataset = data.load(**config.data, report=lambda text: None)
    how = {"seed": 0, "batch_size": config.batch_size, "start": 0, "remainder": "drop"}
    steps = batches.steps_per_epoch(len(dataset.train), config.batch_size)
    made = recipe.build(config, dataset, steps)
    state = step.init(made, seed=0, image_shape=dataset.train.image_shape)
    train_step = jax.jit(partial(step.train_step, made), donate_argnums=0)
    source = chain.from_iterable(
        batches.training(dataset.train, epoch=epoch, **how) for epoch in count()
    )

    def steps_of(n):
        nonlocal state
        for _ in range(n):
            state, values = train_step(state, next(source))
        jax.block_until_ready((state, values))

    serve(steps_of)


main()
