"""Batches of a split: a pure function of seed, epoch and position."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from vgg_jax import mesh as meshes
from vgg_jax.data.in_memory import Split
from vgg_jax.data.on_device import OnDevice
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError, choose

REMAINDERS = ("drop", "keep")
Array = Any  # numpy.ndarray on the host, jax.Array inside jit
PADDING = -1  # label of the images that only fill up an evaluation batch


class Batch(NamedTuple):
    """Images to evaluate.

    Attributes:
        images: uint8 `[B, H, W, C]`.
        labels: int32 `[B]`; `PADDING` marks an image that counts nowhere.
    """

    images: Array
    labels: Array


class TrainingBatch(NamedTuple):
    """Images to train on.

    Attributes:
        images: uint8 `[B, H, W, C]`.
        labels: int32 `[B]`.
        index: int32 `[B]`, number of each image in its split.
        epoch: int32 scalar, from 0.
    """

    images: Array
    labels: Array
    index: Array
    epoch: Array


def steps_per_epoch(examples: int, batch_size: int, remainder: str = "drop") -> int:
    """Returns the number of batches per epoch.

    Args:
        examples: number of images in the split.
        batch_size: images per batch.
        remainder: whether to "drop" the last partial batch or "keep" it as it is.

    Raises:
        ConfigError: the batch is larger than the split, or `remainder` is unknown.

    >>> steps_per_epoch(1000, 64), steps_per_epoch(1000, 64, "keep")
    (15, 16)
    """
    choose(REMAINDERS, remainder, "remainder")
    if batch_size > examples:
        raise ConfigError(
            f"batch_size={batch_size} is larger than the training split of "
            f"{examples:,} images: use at most {examples}"
        )
    return examples // batch_size if remainder == "drop" else -(-examples // batch_size)


def order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Returns the permutation in which an epoch sees the images, int64 `[examples]`.

    Args:
        seed: of the run.
        epoch: from 0.
        examples: number of images in the split.

    >>> sorted(order(seed=0, epoch=3, examples=5).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.random.default_rng((seed, epoch)).permutation(examples)


def training(
    split: Split | Streamed | OnDevice,
    *,
    seed: int,
    batch_size: int,
    epoch: int,
    start: int,
    remainder: str,
    mesh: Mesh | None = None,
) -> Iterator[TrainingBatch]:
    """Yields the batches of an epoch, from the batch number `start` on.

    Args:
        split: the images.
        seed: of the run; see `order`.
        batch_size: images per batch.
        epoch: from 0.
        start: number of batches to skip, for an epoch that is resumed.
        remainder: "drop" or "keep"; see `steps_per_epoch`.
        mesh: the devices that share a batch. Where they are those of several processes,
            each reads its own rows of it only. None: all rows are read.

    Raises:
        ConfigError: as `steps_per_epoch`, when the first batch is asked for.

    >>> split = Split(np.zeros((5, 2, 2, 3), np.uint8), np.arange(5, dtype=np.int32))
    >>> epoch = training(
    ...     split, seed=0, batch_size=2, epoch=0, start=0, remainder="keep"
    ... )
    >>> [len(batch.labels) for batch in epoch]
    [2, 2, 1]
    """
    if isinstance(split, Streamed):
        split = split.in_epoch(seed, epoch)
    permutation = order(seed, epoch, len(split)).astype(np.int32)
    count = steps_per_epoch(len(split), batch_size, remainder)
    rows = meshes.own_rows(mesh, batch_size)
    groups = _groups(permutation, batch_size)[start:count]
    indices = [index[rows[rows < len(index)]] for index in groups]
    for index, (images, labels) in zip(indices, split.batches(indices), strict=True):
        read = meshes.assembled((images, labels, index), mesh, batch_size)
        yield TrainingBatch(*read, np.int32(epoch))


def evaluation(
    split: Split | Streamed, *, batch_size: int, mesh: Mesh | None = None
) -> Iterator[Batch]:
    """Yields every image once, in order, in batches of one size.

    The last batch is filled up with black images labelled `PADDING`.

    Args:
        split: the images.
        batch_size: images per batch.
        mesh: as for `training`.

    >>> split = Split(np.zeros((3, 2, 2, 3), np.uint8), np.arange(3, dtype=np.int32))
    >>> [batch.labels.tolist() for batch in evaluation(split, batch_size=2)]
    [[0, 1], [2, -1]]
    """
    rows = meshes.own_rows(mesh, batch_size)
    groups = _groups(np.arange(len(split)), batch_size)
    indices = [index[rows[rows < len(index)]] for index in groups]
    for images, labels in split.batches(indices):
        missing = len(rows) - len(labels)
        batch = Batch(
            np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))),
            np.pad(labels, (0, missing), constant_values=PADDING),
        )
        yield meshes.assembled(batch, mesh, batch_size)


def _groups(index: np.ndarray, size: int) -> Sequence[np.ndarray]:
    return [index[i : i + size] for i in range(0, len(index), size)]
