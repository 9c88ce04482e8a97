"""Trains a few steps of a network with dense layers on meshes of several shapes.

Run by `test_tensor_parallel.py` in a process of its own, as the number of devices is
fixed when JAX starts: `python on_meshes.py DATAxMODEL[:PLACEMENT] ...`. Prints, for
each, what came out and what the first device holds.
"""

import json
import sys

import jax
import numpy as np

from vgg_jax import backend, mesh
from vgg_jax.data.batches import Batch, TrainingBatch
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import collectives, placement, step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

BATCH, STEPS, SIZE, CLASSES = 16, 3, 8, 10


def recipe():
    return step.Recipe(
        model=VGG(
            "conv3-8 | conv3-16 |",
            CLASSES,
            hidden=(64, 1024),
            batch_norm=True,
            conv="lax",
        ),
        augment=Augment(flip="random", normalize="cifar10"),
        optimizer=SGD(nesterov=True, muon=0.4).transformation(),
        schedule=lambda _: 0.01,
    )


def main():
    backend.configure()
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    labels = numbers.integers(0, CLASSES, BATCH).astype(np.int32)
    index = np.arange(BATCH, dtype=np.int32)
    for named in sys.argv[1:]:
        shape, _, where = named.partition(":")
        devices = mesh.over(*map(int, shape.split("x")))
        where = where or "replicated"
        train, evaluate = step.compiled(recipe(), devices, where)
        state = step.init(recipe(), seed=0, image_shape=images.shape[1:])
        state = placement.placed(state, devices, where)
        losses = []
        for i in range(STEPS):
            batch = TrainingBatch(images, labels, index, np.int32(i))
            if not i:
                train = train.lower(state, batch).compile()
            state, metrics = train(state, batch)
            losses.append(float(metrics["loss"]))
        kernel = state.params["fc7"]["kernel"]
        gather = jax.jit(lambda tree, mesh=devices: placement.gathered(tree, mesh))
        variables = state.variables if devices.size == 1 else gather(state.variables)
        sums, logits = evaluate(variables, Batch(images, labels))
        row = {
            "mesh": named,
            "held": sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(state)),
            "fc7": list(kernel.addressable_data(0).shape),
            "sent": collectives.of_program(train.as_text()),
            "losses": losses,
            "loss": float(sums.loss),
            "logits": np.asarray(logits).ravel().tolist(),
            "params": [
                float(np.linalg.norm(jax.device_get(x)))
                for x in jax.tree.leaves(state.params)
            ],
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
