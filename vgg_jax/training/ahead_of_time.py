"""The training step of a config, compiled ahead of time."""

import dataclasses
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vgg_jax import mesh as meshes
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.data.datasets import Dataset
from vgg_jax.data.in_memory import Split
from vgg_jax.nn import architecture, conv, emitted, fused
from vgg_jax.nn.preprocessing import PREPROCESSING
from vgg_jax.nn.vgg import VGG
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


def begin_kernels(model: VGG, batch_size: int) -> None:
    """Has a thread compile the largest kernels of a training step, before it is traced.

    They are those of 3x3 convolutions, the value's first, but not of the last maps:
    whether those have two pixels a side, and other kernels, depends on the images.

    Args:
        model: the network, on one device.
        batch_size: images per batch.
    """
    if model.conv != "auto":
        return
    least = architecture.least_size(model.variant)
    of = partial(jax.ShapeDtypeStruct, dtype=model.dtype)
    convolutions: list[tuple[Any, Any]] = [
        (
            of((batch_size, *spec.size, spec.inputs)),
            of((3, 3, spec.inputs, spec.channels)),
        )
        for spec in model.layers((least, least))
        if spec.kind == "conv" and spec.kernel == 3 and min(spec.size) > 2
    ]
    fast = [(x, w) for x, w in convolutions if conv.is_fused(x, w, prepared=False)]
    kinds = (
        kind
        for gradients in (False, True)
        for x, w in fast
        for kind in fused.kernels(x, w, gradients=gradients)
    )
    emitted.begin(dict.fromkeys(kinds))


def begun(
    train_step: Any, state: Any, *, batch_size: int, image_shape: tuple[int, ...]
) -> Callable[..., Any]:
    """Returns the training step of one device, which a thread compiles from now on.

    Meanwhile its first state can be made. The first call waits for the thread, and
    raises what failed there. It is traced here, so that what a caller set for this
    thread holds: precision, Flax's interceptors.

    Args:
        train_step: of `step.compiled`.
        state: shapes and types of the `step.TrainState` that it will be called with.
        batch_size: images per batch, which come from the host.
        image_shape: `(H, W, C)` of each.
    """
    of = jax.ShapeDtypeStruct
    batch = TrainingBatch(
        of((batch_size, *image_shape), np.uint8),
        of((batch_size,), np.int32),
        of((batch_size,), np.int32),
        of((), np.int32),
    )

    traced = train_step.trace(state, batch)
    failed: list[Exception] = []

    def compile_() -> None:
        try:
            with emitted.meanwhile():
                lowered = traced.lower()
            lowered.compile()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=compile_)
    thread.start()

    def ready(*arguments: Any) -> Any:
        thread.join()
        if failed:  # JAX keeps what was lowered, of kernels that may not be there
            raise failed[0]
        return train_step(*arguments)

    return ready
