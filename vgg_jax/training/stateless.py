"""Optimiser steps without state that know the learning rate."""

from collections.abc import Callable
from typing import Any

import optax


def stateless(
    function: Callable[[Any, Any, Any], Any],
) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation that applies a function to the updates.

    Args:
        function: takes updates, parameters and the extra argument `learning_rate`;
            returns updates.

    >>> half = stateless(lambda updates, params, learning_rate: updates * learning_rate)
    >>> half.update(8.0, half.init(1.0), learning_rate=0.5)[0]
    4.0
    """

    def init(params: Any) -> Any:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return function(updates, params, extra_args["learning_rate"]), state

    return optax.GradientTransformationExtraArgs(init, update)
