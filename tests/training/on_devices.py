"""Trains a few steps on so many devices each; prints what came out, line by line.

Run by `test_shards.py` in a process of its own, as the number of devices is fixed when
JAX starts:
`python on_devices.py SHARDS DTYPE BATCH_NORM MUON HEAD DEVICES[:PLACEMENT] ...`.
"""

import json
import sys
import zlib

import jax
import numpy as np

from vgg_jax import backend, mesh
from vgg_jax.data.batches import Batch, TrainingBatch
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import placement, step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

BATCH, STEPS, SIZE = 64, 3, 16
NETWORKS = {  # by head, or a name
    "tiny": {"variant": "conv3-8 | conv3-8 |", "head": "compact"},
    "paper": {"variant": "conv3-32 | conv3-64 conv1-64 | conv3-64 |", "hidden": (32,)},
    # Its last layer sees few pixels beside its kernel: a matrix product.
    "compact": {"variant": "conv3-32 | conv3-64 | conv3-512 | conv3-512 |"},
}


def crc(tree) -> int:
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
    return zlib.crc32(b"".join(leaves))


def main():
    shards, dtype, batch_norm = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
    muon, head = float(sys.argv[4]), sys.argv[5]
    backend.configure()
    recipe = step.Recipe(
        model=VGG(
            **{"head": head} | NETWORKS[head],
            num_classes=10,
            batch_norm=batch_norm,
            dtype=dtype,
        ),
        augment=Augment(crop=2, flip="random", normalize="cifar10"),
        optimizer=SGD(nesterov=True, muon=muon).transformation(),
        schedule=lambda _: 0.01,
        shards=shards,
    )
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    labels = numbers.integers(0, 10, BATCH).astype(np.int32)
    for named in sys.argv[6:]:
        count, _, where = named.partition(":")
        where = where or "replicated"
        devices = mesh.over(int(count))
        train, evaluate = step.compiled(recipe, devices, where)
        state = step.init(recipe, seed=0, image_shape=images.shape[1:])
        state = placement.placed(state, devices, where)
        losses = []
        for i in range(STEPS):
            index = np.arange(BATCH, dtype=np.int32)
            batch = TrainingBatch(images, labels, index, np.int32(i))
            state, metrics = train(state, batch)
            losses.append(float(metrics["loss"]))
        held = sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(state))
        state = jax.device_get(state)
        params = state.params
        sums, logits = evaluate(state.variables, Batch(images, labels))
        row = {
            "devices": named,
            "held": held,
            "params": crc(params),
            "state": crc(state),
            "logits": crc(logits),
            "loss": float(sums.loss),
            "losses": losses,
            "last": np.asarray(params["fc8"]["kernel"]).ravel()[:50].tolist(),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
