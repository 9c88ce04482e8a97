"""Which part of a run's state each device holds."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vgg_jax import mesh as meshes
from vgg_jax.nn.cost import LayerCost
from vgg_jax.nn.patterns import matches

# Name -> the parts of `step.TrainState` of which each device holds a share of every
# large array; the others are whole on each. ZeRO: Rajbhandari et al., 2020; FSDP is its
# third stage.
PLACEMENTS = {
    "replicated": (),
    "zero1": ("opt_state", "ema"),
    "fsdp": ("opt_state", "ema", "params"),
}
# Patterns of parameters whose columns the devices of a group share, if they divide
# them, and how (tensor parallelism, of dense layers only: Krizhevsky, 2014, "One weird
# trick"). The state of the optimiser goes with its parameter.
COLUMNS = {"fc*/kernel": P(None, meshes.MODEL), "fc*/bias": P(meshes.MODEL)}
_SMALL = 10_000  # elements of an array that is not worth spreading


def are_divided(features: int, mesh: Mesh) -> bool:
    """Returns whether the devices of a group share a dense layer of so many features.

    >>> are_divided(4096, meshes.over(1))
    False
    """
    model = mesh.shape[meshes.MODEL]
    return model > 1 and features % model == 0


def shardings(state: Any, mesh: Mesh, placement: str) -> Any:
    """Returns the sharding of each array of a state.

    The columns of dense layers are divided (`COLUMNS`). Of what is spread, a large
    array is so along its longest axis that the devices divide.

    Args:
        state: `step.TrainState` of arrays, or of what has their shapes.
        mesh: the devices.
        placement: one of `PLACEMENTS`.
    """
    spread = PLACEMENTS[placement]

    def one(path: Any, leaf: Any) -> NamedSharding:
        spec = _columns(path, leaf, mesh)
        if path[0].name in spread and math.prod(leaf.shape) >= _SMALL:
            spec = _spread_too(spec, leaf.shape, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, state)


def gathered(variables: Any, mesh: Mesh) -> Any:
    """Returns variables as evaluation has them: whole, but for divided columns."""
    columns = lambda path, leaf: NamedSharding(mesh, _columns(path, leaf, mesh))
    where = jax.tree_util.tree_map_with_path(columns, variables)
    return jax.lax.with_sharding_constraint(variables, where)


def _columns(path: Any, leaf: Any, mesh: Mesh) -> P:
    """Returns what `COLUMNS` says of an array."""
    name = "/".join(str(getattr(key, "key", "")) for key in path[-2:])
    if leaf.shape and are_divided(leaf.shape[-1], mesh):
        for pattern, spec in COLUMNS.items():
            if matches(name, pattern):
                return spec
    return P()


def _spread_too(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
    """Returns the specification with the longest axis that it leaves spread, too."""
    axes = (meshes.DATA,) if meshes.MODEL in spec else meshes.AXES
    devices = math.prod(mesh.shape[axis] for axis in axes)
    named = [*spec, *[None] * (len(shape) - len(spec))]
    free = zip(shape, named, strict=True)
    fits = [n if n % devices == 0 and name is None else 0 for n, name in free]
    if not max(fits):
        return spec
    named[int(np.argmax(fits))] = axes
    return P(*named)


def placed(state: Any, mesh: Mesh, placement: str) -> Any:
    """Returns a state, the same one in all processes, where it belongs.

    Of a mesh of one device the arrays stay as they are: a program is compiled once more
    where its arguments come placed another way.
    """
    if mesh.size == 1:
        return state
    return meshes.put(state, shardings(state, mesh, placement))


def divided(rows: Iterable[LayerCost], model: int) -> int:
    """Returns the number of parameters of dense layers whose columns are divided.

    Args:
        rows: of `cost.costs`.
        model: number of devices of a group.
    """
    dense = [row for row in rows if matches(f"{row.name}/kernel", "fc*/kernel")]
    return sum(row.params for row in dense if model > 1 and row.elements % model == 0)


def spared(
    placement: str,
    devices: int,
    parameters: int,
    *,
    model: int = 1,
    divided: int = 0,
) -> int:
    """Returns the bytes of weights, velocity and gradients that a device need not hold.

    Gradients are whole on each until they are added up, but for those of columns.

    Args:
        placement: one of `PLACEMENTS`.
        devices: number of them.
        parameters: number of them.
        model: number of devices of a group.
        divided: number of parameters whose columns a group divides.

    >>> spared("zero1", 4, 100), spared("fsdp", 4, 100), spared("replicated", 4, 100)
    (300, 600, 0)
    >>> spared("replicated", 4, 100, model=2, divided=50)
    300
    """
    columns, all_of_them = (
        count * (1 - 1 / parts)
        for count, parts in ((divided, model), (parameters, devices))
    )
    spread = PLACEMENTS[placement]
    held = [
        all_of_them if what in spread else columns for what in ("params", "opt_state")
    ]
    return round(4 * (sum(held) + columns))
