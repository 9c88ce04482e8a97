"""Exact evaluation: every image of a split counted once, whatever the batch size."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from vgg_jax.data import batches
from vgg_jax.data.datasets import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.evaluation.metrics import Sums


class Evaluation(NamedTuple):
    """Attributes:
    count: images.
    loss: mean cross-entropy, nats.
    accuracy: top-1, in [0, 1].
    top5: top-5 accuracy, in [0, 1].
    logits: float32 `[count, K]`.
    labels: int32 `[count]`.
    """

    count: int
    loss: float
    accuracy: float
    top5: float
    logits: np.ndarray
    labels: np.ndarray


def evaluate(
    eval_step: Callable,
    variables,
    split: Split | Streamed,
    *,
    batch_size: int,
    report: Callable[[int], None] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Runs `eval_step(variables, batch)` over a split.

    Args:
        batch_size: images at once; the last batch is padded and masked.
        report: is told how many images are done.
        stop: asked before every batch; True abandons the evaluation.

    Returns:
        The evaluation, or None if it was abandoned.
    """
    total, logits, labels = Sums.zero(), [], []
    batch_size = min(batch_size, len(split))
    for i, batch in enumerate(batches.evaluation(split, batch_size=batch_size)):
        if stop():
            return None
        part, found = jax.device_get(eval_step(variables, batch))
        total += part
        logits.append(found)
        labels.append(batch["label"])
        report(min((i + 1) * batch_size, len(split)))
    if total.count != len(split):
        raise AssertionError(f"{total.count} of {len(split)} images were counted")
    logits, labels = (np.concatenate(a)[: len(split)] for a in (logits, labels))
    return Evaluation(len(split), logits=logits, labels=labels, **total.means())
