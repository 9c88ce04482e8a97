"""Averages of the weights over the updates, which evaluation uses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

_EVERY, _POWER = 5, 3  # of the lookahead


class Average(NamedTuple):
    """An average, and what is averaged.

    Attributes:
        update: takes weights, their average and the number of the update, from 0;
            returns both.
        statistics: whether batch norm's running mean and variance are among the
            weights.
    """

    update: Callable[[Any, Any, jax.Array], tuple[Any, Any]]
    statistics: bool


def exponential(decay: float) -> Average:
    """Returns `average <- decay * average + (1 - decay) * weights`, per update.

    Parameters and batch norm's statistics alike, as timm's `ModelEmaV2` and PyTorch's
    `AveragedModel(use_buffers=True)` do; both start at the values before training.

    >>> update, _ = exponential(0.75)
    >>> weights, average = update(jnp.array(8.0), jnp.array(4.0), jnp.array(0))
    >>> float(average)
    5.0
    """

    def update(weights: Any, average: Any, step: jax.Array) -> tuple[Any, Any]:
        del step
        return weights, optax.incremental_update(weights, average, 1 - decay)

    return Average(update, statistics=True)


def lookahead(decay: float, total_steps: int) -> Average:
    """Returns an average that moves to the weights every five updates, and they to it.

    Zhang et al. (2019), with the growing decay of Jordan (2024), section 3.4: the
    share `decay**5 * (step / total_steps)**3` of the average stays. Batch norm's
    statistics, averages already, are left as they are.

    Args:
        decay: per update, at the end of training, in (0, 1).
        total_steps: updates of the whole run.
    """

    def update(weights: Any, average: Any, step: jax.Array) -> tuple[Any, Any]:
        stays = decay**_EVERY * (step / total_steps) ** _POWER
        moved = optax.incremental_update(weights, average, 1 - stays)
        now = (step + 1) % _EVERY == 0
        pick = lambda new, old: jnp.where(now, new, old)
        return jax.tree.map(pick, moved, weights), jax.tree.map(pick, moved, average)

    return Average(update, statistics=False)
