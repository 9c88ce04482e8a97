"""Makes the same steps in several ways on this machine, and compares the weights.

A batch whole and in eight shards, which is gradient accumulation on one device; the
same again; and where there are several devices, on 2, 4 and 8 of them, with the state
spread (`mesh.state`) and with the dense layers divided (`mesh.model`).

    python -m benchmarks.equality

A line per way: whether all bits of the weights are those of the first one, else how far
they are, as a share of the way from the initial weights. Products are as exact as the
device can ("highest"). The exit status is 1 if float32 strays by more than 0.1%, which
is no rounding.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from vgg_jax import backend, machine
from vgg_jax import mesh as meshes
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import placement, step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

NETWORK, SIZE, CLASSES, SHARDS = "conv3-32 | conv3-64 | conv3-128 |", 32, 10, 8
MOST = 1e-3  # distance in float32


class Way(NamedTuple):
    """A way to make the steps."""

    shards: int = SHARDS
    devices: int = 1
    model: int = 1
    state: str = "replicated"


def ways(devices: int) -> Iterator[Way]:
    """Yields the ways that so many devices allow, the one to compare with first.

    >>> [way.shards for way in ways(1)]
    [8, 8, 1]
    """
    yield Way()
    yield Way()
    yield Way(shards=1)
    for count in (2, 4, 8):
        if count <= devices:
            yield Way(devices=count)
            yield Way(devices=count, state="fsdp")
            yield Way(1, count)
            yield Way(1, count, model=2)


def weights(way: Way, dtype: str, steps: int, batch: int) -> list[np.ndarray]:
    """Returns the weights after so many steps; of none, the initial ones."""
    recipe = step.Recipe(
        model=VGG(NETWORK, CLASSES, hidden=(256, 256), dropout=0, dtype=dtype),
        augment=Augment(crop=4, flip="random", normalize="cifar10"),
        optimizer=SGD(nesterov=True, muon=0.1).transformation(),
        schedule=lambda _: 0.01,
        shards=way.shards,
    )
    numbers = np.random.default_rng(0)
    shape = (SIZE, SIZE, 3)
    images = numbers.integers(0, 256, (batch, *shape), np.uint8)
    labels = numbers.integers(0, CLASSES, batch).astype(np.int32)
    index = np.arange(batch, dtype=np.int32)
    mesh = meshes.of(jax.devices()[: way.devices], way.model)
    train, _ = step.compiled(recipe, mesh, way.state)
    init = partial(step.init, recipe, seed=0, image_shape=shape)
    state = jax.jit(init)()
    state = placement.placed(state, mesh, way.state)
    for epoch in range(steps):
        state, _ = train(state, TrainingBatch(images, labels, index, np.int32(epoch)))
    leaves: Any = jax.device_get(jax.tree.leaves(state.params))
    return leaves


def distance(own: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Returns the Euclidean distance of weights.

    >>> distance([np.ones(4)], [np.zeros(4)])
    2.0
    """
    squares = [
        np.sum(np.square(a.astype(float) - b)) for a, b in zip(own, other, strict=True)
    ]
    return float(np.sqrt(sum(squares)))


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    options = parser.parse_args()
    backend.configure()
    jax.config.update("jax_default_matmul_precision", "highest")
    print(machine.environment(), flush=True)
    strayed = False
    for dtype in options.dtypes.split(","):
        first: list[np.ndarray] = []
        begin = weights(Way(), dtype, 0, options.batch)
        for way in ways(len(jax.devices())):
            own = weights(way, dtype, options.steps, options.batch)
            first = first or own
            share = distance(own, first) / distance(first, begin)
            equal = all(map(np.array_equal, own, first))
            row = way._asdict() | {"dtype": dtype, "bits": equal, "distance": share}
            print(json.dumps(row), flush=True)
            strayed |= dtype == "float32" and not share <= MOST
    sys.exit(int(strayed))


if __name__ == "__main__":
    main()
