"""Checkpoints of older versions, read into today's state.

A table of what changed, newest first; a checkpoint that is older than several changes
goes through all of them.
"""

import ast
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from vgg_jax.runs.checkpoint_record import Damaged

_Names = set[tuple[str, ...]]  # of the arrays in a checkpoint, by the keys to them


class _Change(NamedTuple):
    """A change of the state.

    Attributes:
        concerns: whether a checkpoint, by its names, is older than this change, for a
            run whose state today is the second argument.
        to_old: turns a state of the later structure into the earlier one.
        to_new: the inverse of `to_old`.
    """

    concerns: Callable[[_Names, Any], bool]
    to_old: Callable[[Any], Any]
    to_new: Callable[[Any], Any]


def structure(checkpoint: Path, state: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Returns the structure a checkpoint has, and what turns it into today's.

    Args:
        checkpoint: a directory of Orbax.
        state: of the structure that the run has today.

    Returns:
        A state to read the checkpoint into, and the function to call with what was
        read; `state` and the identity where nothing changed since.
    """
    known = names(checkpoint)
    changes = [change for change in _CHANGES if change.concerns(known, state)]
    for change in changes:
        state = change.to_old(state)

    def to_new(read):
        for change in reversed(changes):
            read = change.to_new(read)
        return read

    return state, to_new


def names(checkpoint: Path) -> set[tuple[str, ...]]:
    """Returns the names of the arrays in a checkpoint, by the keys to them.

    Raises:
        Damaged: its list of them is torn.
    """
    file = checkpoint / "state" / "_METADATA"
    try:
        listed = json.loads(file.read_text())["tree_metadata"]
        return {ast.literal_eval(name) for name in listed}
    except (ValueError, SyntaxError, LookupError, TypeError) as error:
        raise Damaged(f"checkpoint {checkpoint.name}: {file.name} is torn") from error


# Until 0.2.0 the exponential average left out the statistics of batch norm. The
# averages of them start at the statistics of the checkpoint.


def _lacks_averaged_statistics(names: _Names, state: Any) -> bool:
    averaged = flatten_dict(state.ema).keys() & flatten_dict(state.batch_stats).keys()
    return any(("ema", *name) not in names for name in averaged)


def _without_averaged_statistics(state: Any) -> Any:
    statistics = flatten_dict(state.batch_stats)
    average = {k: v for k, v in flatten_dict(state.ema).items() if k not in statistics}
    return state.replace(ema=unflatten_dict(average))


def _with_averaged_statistics(state: Any) -> Any:
    average = flatten_dict(state.ema) | flatten_dict(state.batch_stats)
    return state.replace(ema=unflatten_dict(average))


# In 0.1 the kernel of a whitening layer was called `frozen_kernel`, and the optimiser
# and the averages carried one too.

_LAYER, _OLD, _NEW = "conv1_1", "frozen_kernel", "kernel"


def _has_frozen_kernel(names: _Names, state: Any) -> bool:
    del state
    return ("params", _LAYER, _OLD) in names


def _with_frozen_kernels(state: Any) -> Any:
    kernel = state.params[_LAYER][_NEW]
    without = lambda layer: {k: v for k, v in layer.items() if k != _NEW}
    return _change(state, lambda layer: {**without(layer), _OLD: kernel})


def _with_one_kernel(state: Any) -> Any:
    kernel = state.params[_LAYER][_OLD]
    state = _change(state, lambda layer: {k: v for k, v in layer.items() if k != _OLD})
    layer = {**state.params[_LAYER], _NEW: kernel}
    return state.replace(params={**state.params, _LAYER: layer})


def modern_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters of any version under the names of today."""
    return {
        layer: {_NEW if name == _OLD else name: x for name, x in arrays.items()}
        for layer, arrays in params.items()
    }


def _change(state, function):
    """Applies a function to the layer wherever parameters, or the like, are."""
    holds = lambda tree: isinstance(tree, dict) and _LAYER in tree
    change = lambda tree: (
        {**tree, _LAYER: function(tree[_LAYER])} if holds(tree) else tree
    )
    return jax.tree.map(change, state, is_leaf=holds)


_CHANGES = (
    _Change(
        concerns=_lacks_averaged_statistics,
        to_old=_without_averaged_statistics,
        to_new=_with_averaged_statistics,
    ),
    _Change(
        concerns=_has_frozen_kernel,
        to_old=_with_frozen_kernels,
        to_new=_with_one_kernel,
    ),
)
