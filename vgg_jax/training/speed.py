"""How fast this machine computes: matrix products, and the training step of VGG-16."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax import mesh as meshes
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.nn import cost
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

BATCH = 128  # images per step
_SIZE = 32  # their height and width in pixels
_SIDE = 2048  # of the matrices
_TURNS = 5


def product_rate(dtype: str) -> float:
    """Returns the FLOP per second of the product of two 2048x2048 matrices.

    Args:
        dtype: "float32" or "bfloat16".

    >>> product_rate("float32") > 1e6
    True
    """
    a = jnp.ones((_SIDE, _SIDE), dtype)
    multiply = jax.jit(jnp.matmul)
    return 2 * _SIDE**3 / _seconds(lambda: multiply(a, a), per_turn=0.1)


def training_rate(dtype: str) -> tuple[float, float]:
    """Returns images per second of VGG-16 D's training step, and FLOP per image.

    32 px, ten classes, compact head, batches of 128, as `benchmarks.throughput` has
    them. FLOP are 2 per MAC of the direct convolution, three times the forward pass.

    Args:
        dtype: "float32" or "bfloat16".
    """
    model = VGG("D", 10, head="compact", dtype=dtype)
    recipe = step.Recipe(
        model=model,
        augment=Augment(normalize="cifar10"),
        optimizer=SGD().transformation(),
        schedule=lambda _: 1e-3,
    )
    state = step.init(recipe, seed=0, image_shape=(_SIZE, _SIZE, 3))
    numbers = np.random.default_rng(0)
    batch = TrainingBatch(
        images=numbers.integers(0, 256, (BATCH, _SIZE, _SIZE, 3), np.uint8),
        labels=numbers.integers(0, 10, BATCH).astype(np.int32),
        index=np.arange(BATCH, dtype=np.int32),
        epoch=np.int32(0),
    )
    batch = jax.device_put(batch)
    train, _ = step.compiled(recipe, meshes.over(1))

    def one_step():
        nonlocal state
        state, metrics = train(state, batch)
        return metrics

    seconds = _seconds(one_step, per_turn=1.0)
    macs = cost.total(cost.costs(model.layers((_SIZE, _SIZE)))).macs
    return BATCH / seconds, 6 * macs


def _seconds(call: Callable[[], object], per_turn: float) -> float:
    """Returns how long a call takes, the median of several turns after the first."""

    def turn(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            jax.block_until_ready(call())
        return (time.perf_counter() - begin) / count

    turn(1)  # compiles
    count = max(1, round(per_turn / turn(1)))
    return statistics.median(turn(count) for _ in range(_TURNS))
