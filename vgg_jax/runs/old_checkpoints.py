"""Checkpoints of version 0.1, read into today's state.

There, the kernel of a whitening layer was called `frozen_kernel`, and the optimiser and
the averages carried one too.
"""

from pathlib import Path
from typing import Any

import jax

_LAYER, _OLD, _NEW = "conv1_1", "frozen_kernel", "kernel"


def has_frozen_kernel(checkpoint: Path) -> bool:
    """Whether a checkpoint, a directory of Orbax, was written so."""
    return f"'{_OLD}'" in (checkpoint / "state" / "_METADATA").read_text()


def to_old(state: Any) -> Any:
    """Returns a state of the structure that such a checkpoint has."""
    kernel = state.params[_LAYER][_NEW]
    without = lambda layer: {k: v for k, v in layer.items() if k != _NEW}
    return _change(state, lambda layer: {**without(layer), _OLD: kernel})


def to_new(state: Any) -> Any:
    """Returns a state read from such a checkpoint as today's programs hold it."""
    kernel = state.params[_LAYER][_OLD]
    state = _change(state, lambda layer: {k: v for k, v in layer.items() if k != _OLD})
    layer = {**state.params[_LAYER], _NEW: kernel}
    return state.replace(params={**state.params, _LAYER: layer})


def _change(state, function):
    """Applies a function to the layer wherever parameters, or the like, are."""
    holds = lambda tree: isinstance(tree, dict) and _LAYER in tree
    change = lambda tree: (
        {**tree, _LAYER: function(tree[_LAYER])} if holds(tree) else tree
    )
    return jax.tree.map(change, state, is_leaf=holds)
