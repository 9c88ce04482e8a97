"""Batches of a split: a pure function of seed, epoch and position."""

from collections.abc import Iterator

import numpy as np

from vgg_jax.data import Split
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
    split: Split, *, seed: int, batch_size: int, epoch: int, start: int, remainder: str
) -> Iterator[dict[str, np.ndarray]]:
    """Batches `start`, `start + 1` ... of an epoch.

    Yields:
        `image` uint8 `[B, H, W, C]`, `label` int32 `[B]`, `index` int32 `[B]` (the
        number of the image in the split) and `epoch` int32 scalar.
    """
    permutation = order(seed, epoch, len(split)).astype(np.int32)
    for i in range(start, steps_per_epoch(len(split), batch_size, remainder)):
        index = permutation[i * batch_size : (i + 1) * batch_size]
        yield {
            "image": split.images[index],
            "label": split.labels[index],
            "index": index,
            "epoch": np.int32(epoch),
        }


def evaluation(split: Split, *, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every image once, in order, in batches of one size.

    The last batch is filled up with black images labelled `PADDING`.

    Yields:
        `image` uint8 `[B, H, W, C]` and `label` int32 `[B]`.
    """
    for start in range(0, len(split), batch_size):
        images = split.images[start : start + batch_size]
        labels = split.labels[start : start + batch_size]
        missing = batch_size - len(labels)
        yield {
            "image": np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))),
            "label": np.pad(labels, (0, missing), constant_values=PADDING),
        }
