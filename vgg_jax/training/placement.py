"""Which part of a run's state each device holds."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vgg_jax import mesh as meshes

# Name -> the parts of `step.TrainState` of which each device holds a share of every
# large array; the others are whole on each. ZeRO: Rajbhandari et al., 2020; FSDP is its
# third stage.
PLACEMENTS = {
    "replicated": (),
    "zero1": ("opt_state", "ema"),
    "fsdp": ("opt_state", "ema", "params"),
}
_SMALL = 10_000  # elements of an array that is not worth spreading


def shardings(state: Any, mesh: Mesh, placement: str) -> Any:
    """Returns the sharding of each array of a state.

    A large array is spread along its longest axis that the devices divide.

    Args:
        state: `step.TrainState` of arrays, or of what has their shapes.
        mesh: the devices.
        placement: one of `PLACEMENTS`.
    """
    spread = PLACEMENTS[placement]

    def one(path: Any, leaf: Any) -> NamedSharding:
        if path[0].name not in spread or math.prod(leaf.shape) < _SMALL:
            return meshes.whole(mesh)
        fits = [n if n % mesh.size == 0 else 0 for n in leaf.shape]
        if not max(fits):
            return meshes.whole(mesh)
        axis = int(np.argmax(fits))
        return NamedSharding(mesh, P(*[None] * axis, meshes.DATA))

    return jax.tree_util.tree_map_with_path(one, state)


def placed(state: Any, mesh: Mesh, placement: str) -> Any:
    """Returns a state, the same one in all processes, where it belongs.

    Of a mesh of one device the arrays stay as they are: a program is compiled once more
    where its arguments come placed another way.
    """
    if mesh.size == 1:
        return state
    return meshes.put(state, shardings(state, mesh, placement))


def spared(placement: str, devices: int, parameters: int) -> int:
    """Returns the bytes of weights and velocity that a device need not hold.

    Gradients are whole on each until they are added up.

    >>> spared("zero1", 4, 100), spared("fsdp", 4, 100), spared("replicated", 4, 100)
    (300, 600, 0)
    """
    spread = PLACEMENTS[placement]
    parts = ("params" in spread) + ("opt_state" in spread)
    return round(4 * parameters * parts * (1 - 1 / devices))
