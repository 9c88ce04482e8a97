"""Work on several arrays, each of which one device of a mesh does for all.

What needs an array whole, as the orthogonalisation of a kernel does, cannot be cut
along with a batch; each device would repeat all of it. Distributed Shampoo assigns its
preconditioners to devices likewise (Anil et al., 2020).
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def hands(costs: Sequence[float], devices: int) -> list[list[int]]:
    """Returns which tasks each device has, of those devices that have any.

    The dearest task goes first, to whoever has least (Graham, 1969: at most a third
    above the best division).

    Args:
        costs: of each task, in any unit.
        devices: how many share them.

    >>> hands([5, 1, 4, 3, 2], 2)
    [[0, 4, 1], [2, 3]]
    >>> hands([5, 1], 4)
    [[0], [1]]
    """
    dealt, loads = [[] for _ in range(devices)], [0.0] * devices
    for task in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        dealt[least].append(task)
        loads[least] += costs[task]
    return [hand for hand in dealt if hand]


def mapped(
    function: Callable[[jax.Array], jax.Array],
    arrays: Sequence[jax.Array],
    costs: Sequence[float],
    mesh: Mesh,
) -> list[jax.Array]:
    """Returns the function of each array, computed on one device, whole on all.

    The bits are those of one device: what the devices add up is one result and zeros.

    Args:
        function: returns an array of the shape and type of its argument.
        arrays: what to apply it to.
        costs: of each, in any unit.
        mesh: the devices.

    >>> from vgg_jax.mesh import over
    >>> mapped(jnp.negative, [jnp.ones(2), jnp.zeros(1)], [2, 1], over(1))[0].tolist()
    [-1.0, -1.0]
    """
    if mesh.size == 1 or _mixes_sums_up(mesh):
        return [function(x) for x in arrays]
    dealt = hands(costs, mesh.size)
    if len(dealt) < mesh.size:
        dealt.append([])  # of the last and, as `switch` clamps, of all after it
    branches = [partial(_of_a_hand, function, hand) for hand in dealt]

    def on_a_device(arrays):
        own = lax.switch(lax.axis_index(mesh.axis_names), branches, arrays)
        return lax.psum(own, mesh.axis_names)

    there = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False
    )
    return there(list(arrays))


def _of_a_hand(function, hand, arrays):
    return [
        function(x) if i in hand else jnp.zeros_like(x) for i, x in enumerate(arrays)
    ]


def _mixes_sums_up(mesh: Mesh) -> bool:
    """Whether sums over devices are not to be trusted in a call (`nn.apart`)."""
    return jax.process_count() > 1 and mesh.devices.flat[0].platform == "cpu"
