"""Exact evaluation: every image of a split counted once, whatever the batch size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from vgg_jax.data import batches
from vgg_jax.data.datasets import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.evaluation.metrics import Sums
from vgg_jax.mesh import gathered


class Evaluation(NamedTuple):
    """The score of a network on a split, and its outputs in the order of the split.

    Attributes:
        count: number of images, N.
        loss: mean cross-entropy in nats.
        accuracy: share of the images whose label is the first guess, in [0, 1].
        top5: share of the images whose label is among the first five guesses.
        logits: float32 `[N, K]`.
        labels: int32 `[N]`.
    """

    # The field hides `tuple.count`, which nobody would ask of a score.
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    loss: float
    accuracy: float
    top5: float
    logits: np.ndarray
    labels: np.ndarray


def padded(batch_size: int, examples: int, parts: int) -> int:
    """Returns the images of every batch, the last one padded, a multiple of `parts`.

    >>> padded(500, 100, 8)
    104
    """
    return -(-min(batch_size, examples) // parts) * parts


def evaluate(
    eval_step: Callable[[Any, batches.Batch], tuple[Sums, jax.Array]],
    variables: Any,
    split: Split | Streamed,
    *,
    batch_size: int,
    parts: int = 1,
    mesh: Mesh | None = None,
    report: Callable[[int], None] = lambda images_seen: None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Evaluates a network on every image of a split.

    Args:
        eval_step: called as `eval_step(variables, batch)`; returns the totals of the
            batch and its logits `[B, K]`.
        variables: of the network, passed on to `eval_step`.
        split: the images.
        batch_size: images per batch; the last one is padded and masked.
        parts: into which `eval_step` cuts a batch: its size is rounded up to a
            multiple.
        mesh: the devices that share a batch; where they are those of several processes,
            each reads its own images only, and all return the same.
        report: called after each batch with the number of images evaluated so far.
        stop: called before each batch; True abandons the evaluation.

    Returns:
        The evaluation, or None if it was abandoned.

    Raises:
        AssertionError: `eval_step` counted an image twice or not at all.

    >>> def guess_class_1(variables, batch):
    ...     logits = np.tile(np.float32([0, 1]), (len(batch.labels), 1))
    ...     return Sums.of(np.zeros(len(logits)), logits, batch.labels), logits
    >>> split = Split(np.zeros((3, 1, 1, 3), np.uint8), np.int32([0, 1, 1]))
    >>> score = evaluate(guess_class_1, {}, split, batch_size=2)
    >>> score.count, round(score.accuracy, 3), score.logits.shape
    (3, 0.667, (3, 2))
    """
    total, logits, labels = Sums.zero(), [], []
    batch_size = padded(batch_size, len(split), parts)
    read = batches.evaluation(split, batch_size=batch_size, mesh=mesh)
    for i, batch in enumerate(read):
        if stop():
            return None
        batch_sums, batch_logits = gathered(eval_step(variables, batch))
        total += batch_sums
        logits.append(batch_logits)
        labels.append(gathered(batch.labels))
        report(min((i + 1) * batch_size, len(split)))
    if total.count != len(split):
        raise AssertionError(f"{total.count} of {len(split)} images were counted")
    logits, labels = (np.concatenate(a)[: len(split)] for a in (logits, labels))
    return Evaluation(len(split), logits=logits, labels=labels, **total.means())
