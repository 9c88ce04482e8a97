"""The training step of a config, compiled ahead of time."""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vgg_jax import mesh as meshes
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.data.datasets import Dataset
from vgg_jax.data.in_memory import Split
from vgg_jax.nn.preprocessing import PREPROCESSING
from vgg_jax.training import placement, recipe, step
from vgg_jax.training.config import Config

_STEPS = 1_000  # per epoch; a schedule needs a number, a step does not depend on it


def compiled(config: Config, mesh: Mesh, *, classes: int, size: int) -> Any:
    """Returns the training step, compiled for devices that may not be here.

    Args:
        config: the run's.
        mesh: the devices that share each batch.
        classes: of the data set.
        size: height and width of its images, in pixels.
    """
    pixels = np.broadcast_to(np.uint8(0), (1, size, size, 3))
    split = Split(pixels, np.zeros(1, np.int32))
    names = tuple(map(str, range(classes)))
    dataset = Dataset(config.data.name, names, split, None, split)
    some = next(iter(PREPROCESSING))  # any numbers make the same program
    scales = () if config.data.streams else config.augment.scales
    augment = dataclasses.replace(config.augment, normalize=some, scales=scales)
    config = dataclasses.replace(config, augment=augment)
    what = recipe.build(config, dataset, _STEPS)
    train_step: Any = step.compiled(what, mesh, config.mesh.state)[0]
    state = jax.eval_shape(
        partial(step.init, what, seed=0, image_shape=(size, size, 3))
    )
    whole, spread = meshes.whole(mesh), meshes.spread(mesh)
    there = partial(jax.ShapeDtypeStruct, sharding=whole)
    rows = partial(jax.ShapeDtypeStruct, sharding=spread)
    count = config.batch_size
    batch = TrainingBatch(
        rows((count, size, size, 3), np.uint8),
        rows((count,), np.int32),
        rows((count,), np.int32),
        there((), np.int32),
    )
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        state,
        placement.shardings(state, mesh, config.mesh.state),
    )
    return train_step.lower(state, batch).compile()
