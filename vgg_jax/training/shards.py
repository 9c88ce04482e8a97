"""Computing a batch in parts, to the same bits on any number of devices.

A batch is cut into a fixed number of shards, whatever the number of devices. The same
program computes each shard, one after the other on a device, and what is to be added is
added along a balanced binary tree: first neighbours, then pairs of pairs. A device that
holds several shards adds up a subtree of it; devices then exchange their sums with the
ones that are one, two, four places away (recursive doubling). Addition commutes, though
it does not associate, so that all come to the same bits, which are those of one device.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from vgg_jax.mesh import AXES, DATA
from vgg_jax.nn.apart import apart

Tree = Any
Function = Callable[[Tree, Tree], tuple[Tree, Tree]]


def parts(shards: int, mesh: Mesh) -> int:
    """Returns into how many parts a batch is cut: its shards, or one per device."""
    return shards if shards > 1 else mesh.size


def cut(rows: Tree, count: int) -> Tree:
    """Returns arrays `[B, ...]` as `[count, B / count, ...]`.

    >>> import numpy as np
    >>> cut({"labels": np.arange(6)}, 3)["labels"].tolist()
    [[0, 1], [2, 3], [4, 5]]
    """
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), rows)


def joined(shards: Tree) -> Tree:
    """Returns arrays `[count, b, ...]` as `[count * b, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), shards)


def compute(
    function: Function, common: Tree, shards: Tree, *, mesh: Mesh
) -> tuple[Tree, Tree]:
    """Computes the shards of a batch.

    Args:
        function: called as `function(common, shard)`; returns two trees of arrays,
            which have the same shapes for each shard: what is added up, and what stays
            apart.
        common: arrays that each shard sees whole.
        shards: arrays whose first axis counts the shards: a power of two, and a
            multiple of the number of devices.
        mesh: of devices; a power of two, none along `model`.

    Returns:
        The sums, whole on each device; and the rest, whose first axis counts the
        shards, spread over the devices.

    >>> import jax.numpy as jnp
    >>> from vgg_jax.mesh import over
    >>> square = lambda common, x: (common * x**2, -x)
    >>> total, rest = compute(square, jnp.float32(2), jnp.arange(4.0), mesh=over(1))
    >>> total.item(), rest.tolist()
    (28.0, [-0.0, -1.0, -2.0, -3.0])
    """
    there = jax.shard_map(
        partial(_on_a_device, alike(function, mesh), devices=mesh.size),
        mesh=mesh,
        in_specs=(P(), P(AXES)),
        out_specs=(P(), P(AXES)),
        check_vma=False,
    )
    return there(common, shards)


def alike[**A, R](function: Callable[A, R], mesh: Mesh) -> Callable[A, R]:
    """Returns the function so that XLA compiles it alike for any number of devices.

    Its arrays are whole on each device, or it is called in `jax.shard_map`. On CPU
    only: elsewhere no bits are promised, and calls are not known to work.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return function
    return apart(function, whole=True)


def _on_a_device(function, common, shards, *, devices):
    count = len(jax.tree.leaves(shards)[0])
    added, rest = _subtree(partial(function, common), shards, count)
    distance = 1
    while distance < devices:
        pairs = [(i, i ^ distance) for i in range(devices)]
        other = lax.ppermute(added, DATA, pairs)
        added = jax.tree.map(lambda x, y: x + y, added, other)
        distance *= 2
    return added, rest


def _subtree(function, shards, count):
    """Computes so many shards; needs memory for the sums of each level of the tree."""
    if count == 1:
        added, rest = function(jax.tree.map(lambda x: x[0], shards))
        return added, jax.tree.map(lambda x: x[None], rest)
    half = partial(_subtree, function, count=count // 2)
    added, rest = lax.map(half, cut(shards, 2))
    return jax.tree.map(lambda x: x[0] + x[1], added), joined(rest)
