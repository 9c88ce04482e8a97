"""vgg_jax: the product's own `train_step` and network, nothing else."""

from functools import partial

from serve import job, serve

from vgg_jax import backend

backend.configure()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from vgg_jax.nn.vgg import VGG  # noqa: E402
from vgg_jax.training import sgd as optimizer  # noqa: E402
from vgg_jax.training import step  # noqa: E402
from vgg_jax.training.augment import Augment  # noqa: E402


def build(todo):
    """`steps(n)`, which runs n steps, and `compiled()`, the program it runs."""
    batch, size = todo["batch"], todo["size"]
    recipe = step.Recipe(
        model=VGG(
            variant=todo["variant"],
            num_classes=10,
            width=todo["width"],
            batch_norm=todo["batch_norm"],
            head="compact",
            dtype=jnp.dtype(todo["dtype"]),
        ),
        augment=Augment(normalize="cifar10"),
        optimizer=optimizer.sgd(),
        schedule=lambda _: 1e-3,
    )
    state = step.init(recipe, seed=0, image_shape=(size, size, 3))
    numbers = np.random.default_rng(0)
    data = jax.device_put(
        {
            "image": numbers.integers(0, 256, (batch, size, size, 3), np.uint8),
            "label": numbers.integers(0, 10, batch).astype(np.int32),
            "index": np.arange(batch, dtype=np.int32),
            "epoch": np.int32(0),
        }
    )
    train = jax.jit(partial(step.train_step, recipe), donate_argnums=0)
    infer = jax.jit(recipe.model.apply)
    images = recipe.augment.evaluate(data["image"])

    def train_steps(n):
        nonlocal state
        for _ in range(n):
            state, values = train(state, data)
        jax.block_until_ready((state, values))

    def infer_steps(n):
        for _ in range(n):
            logits = infer(state.variables, images)
        jax.block_until_ready(logits)

    if todo["mode"] == "train":
        return train_steps, lambda: train.lower(state, data).compile()
    return infer_steps, lambda: infer.lower(state.variables, images).compile()


if __name__ == "__main__":
    serve(build(job())[0])
