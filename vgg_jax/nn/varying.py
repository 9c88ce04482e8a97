"""Arrays inside `jax.shard_map` that differ from device to device, as types say it."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax


def axes(kind: Any) -> frozenset[str]:
    """Returns the axes of the mesh along which arrays of a type vary.

    None where `jax.shard_map` has `check_vma=False`, and outside of it.

    >>> axes(jax.typeof(jax.numpy.ones(3)))
    frozenset()
    """
    of_mesh = getattr(kind, "mat", None)
    return frozenset(getattr(of_mesh, "varying", ()) or getattr(kind, "vma", ()))


def alike(arrays: Sequence[Any], *, to: Sequence[Any] = ()) -> list[Any]:
    """Returns arrays that vary along the same axes: all those of any of them.

    So the branches of a condition have one type, and a gradient that is written by hand
    has that of what it is by: where an array varied less, JAX sums it over the devices.

    Args:
        arrays: some of them may be plain numbers.
        to: others, along whose axes they vary, too.
    """
    kinds = [axes(jax.typeof(array)) for array in arrays]
    every = frozenset().union(*kinds, *(axes(jax.typeof(array)) for array in to))
    return [
        lax.pcast(array, tuple(sorted(every - own)), to="varying")
        if every - own
        else array
        for array, own in zip(arrays, kinds, strict=True)
    ]
