"""Batches of a split: a pure function of seed, epoch and position."""

from collections.abc import Iterator

import numpy as np

from vgg_jax.data.datasets import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError, choose

REMAINDERS = ("drop", "keep")
PADDING = -1  # label of the images that only fill up an evaluation batch


def steps_per_epoch(examples: int, batch_size: int, remainder: str = "drop") -> int:
    """Batches an epoch; the last partial one is dropped or kept as it is.

    Raises:
        ConfigError: the batch is larger than the split.
    """
    choose(REMAINDERS, remainder, "remainder")
    if batch_size > examples:
        raise ConfigError(
            f"batch_size={batch_size} is larger than the training split of "
            f"{examples:,} images: use at most {examples}"
        )
    return examples // batch_size if remainder == "drop" else -(-examples // batch_size)


def order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The permutation in which an epoch sees the images, int64 `[examples]`."""
    return np.random.default_rng((seed, epoch)).permutation(examples)


def training(
    split: Split | Streamed,
    *,
    seed: int,
    batch_size: int,
    epoch: int,
    start: int,
    remainder: str,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches `start`, `start + 1` ... of an epoch.

    Yields:
        `image` uint8 `[B, H, W, C]`, `label` int32 `[B]`, `index` int32 `[B]` (the
        number of the image in the split) and `epoch` int32 scalar.
    """
    permutation = order(seed, epoch, len(split)).astype(np.int32)
    count = steps_per_epoch(len(split), batch_size, remainder)
    indices = _groups(permutation, batch_size)[start:count]
    for index, (image, label) in zip(indices, split.batches(indices), strict=True):
        yield {
            "image": image,
            "label": label,
            "index": index,
            "epoch": np.int32(epoch),
        }


def _groups(index, size):
    return [index[i : i + size] for i in range(0, len(index), size)]


def evaluation(
    split: Split | Streamed, *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Every image once, in order, in batches of one size.

    The last batch is filled up with black images labelled `PADDING`.

    Yields:
        `image` uint8 `[B, H, W, C]` and `label` int32 `[B]`.
    """
    for images, labels in split.batches(_groups(np.arange(len(split)), batch_size)):
        missing = batch_size - len(labels)
        yield {
            "image": np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))),
            "label": np.pad(labels, (0, missing), constant_values=PADDING),
        }
