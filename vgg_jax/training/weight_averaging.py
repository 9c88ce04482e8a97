"""Averages of the weights over the updates, which evaluation uses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

_EVERY, _POWER = 5, 3  # of the lookahead


def exponential(decay: float) -> Callable:
    """`average <- decay * average + (1 - decay) * params`, after every update."""

    def update(params: Any, average: Any, step: jax.Array) -> tuple[Any, Any]:
        del step
        return params, optax.incremental_update(params, average, 1 - decay)

    return update


def lookahead(decay: float, total_steps: int) -> Callable:
    """Every five updates the average moves to the weights, and they back to it.

    Zhang et al. (2019), with the growing decay of Jordan (2024), section 3.4: the
    share `decay**5 * (step / total_steps)**3` of the average stays.

    Args:
        decay: in (0, 1), an update, at the end of training.
        total_steps: updates of the whole run.
    """

    def update(params: Any, average: Any, step: jax.Array) -> tuple[Any, Any]:
        stays = decay**_EVERY * (step / total_steps) ** _POWER
        moved = optax.incremental_update(params, average, 1 - stays)
        now = (step + 1) % _EVERY == 0
        pick = lambda new, old: jnp.where(now, new, old)  # noqa: E731
        return jax.tree.map(pick, moved, params), jax.tree.map(pick, moved, average)

    return update
