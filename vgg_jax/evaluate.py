"""Exact evaluation: every image of a split counted once, whatever the batch size."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from vgg_jax import batches
from vgg_jax.data import Split


class Evaluation(NamedTuple):
    """Attributes:
    count: images.
    loss: mean cross-entropy, nats.
    accuracy: top-1, in [0, 1].
    top5: top-5 accuracy, in [0, 1].
    confusion: int `[K, K]`, true class by predicted class.
    """

    count: int
    loss: float
    accuracy: float
    top5: float
    confusion: np.ndarray


def evaluate(
    eval_step: Callable,
    variables,
    split: Split,
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
    total = None
    batch_size = min(batch_size, len(split))
    for i, batch in enumerate(batches.evaluation(split, batch_size=batch_size)):
        if stop():
            return None
        part = jax.device_get(eval_step(variables, batch))
        total = part if total is None else jax.tree.map(np.add, total, part)
        report(min((i + 1) * batch_size, len(split)))
    sums, confusion = total
    if sums.count != len(split):
        raise AssertionError(f"{sums.count} of {len(split)} images were counted")
    return Evaluation(len(split), confusion=confusion, **sums.means())
