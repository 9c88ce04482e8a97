"""Operations of JAX that are kernels of our own in a program for one CPU.

In one that is exported, or spread over devices, they are XLA's own: the kernels are
machine code of this process.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.export import is_symbolic_dim
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.sharding import AxisType, PartitionSpec
from jax.typing import DTypeLike

from vgg_jax import machine
from vgg_jax.nn import varying


def suits(x: jax.Array, *others: jax.Array) -> bool:
    """Returns whether maps or matrices `x` are computed with by the kernels.

    That is where there are any (`has_kernels`), and they are the fastest.
    """
    return has_kernels(x, *others) and machine.prefers_kernels(x.dtype.name)


def has_kernels(x: jax.Array, *others: jax.Array) -> bool:
    """Returns whether there are kernels for maps `x`.

    That is where `machine.kernel_kind` says so, and where no type says that an array is
    spread over devices; inside `jax.shard_map` only with `check_vma=False`.
    """
    return (
        x.dtype in (jnp.float32, jnp.bfloat16)
        and not is_symbolic_dim(x.shape[0])
        and all(is_whole(jax.typeof(a)) for a in (x, *others))
        and bool(machine.kernel_kind())
    )


def operation(
    name: str,
    ours: Callable[..., jax.Array],
    xla: Callable[..., jax.Array],
    shape: Callable[..., tuple[int, ...]],
    maps: int = 1,
    dtype: DTypeLike | None = None,
) -> Primitive:
    """Returns an operation of JAX: `ours` in a program for one CPU here, else `xla`.

    Args:
        name: of it, as in a jaxpr.
        ours: of arrays to one.
        xla: the same by XLA alone.
        shape: of the shapes of all arrays to that of the result, which has the type
            of the first unless `dtype` says otherwise.
        maps: how many arrays, the first, have a batch of images as their first axis, as
            the result then has; 0: none.
        dtype: of the result.
    """
    operation = Primitive(name)
    run = jax.jit(operation.bind)

    def compute(*arrays: jax.Array) -> jax.Array:
        # Either would bind the operation again, and so come back here for ever.
        with jax.disable_jit(False), jax.debug_nans(False):
            return run(*arrays)

    operation.def_impl(compute)

    def abstract(first: Any, *rest: Any):
        of = shape(first.shape, *(a.shape for a in rest))
        return like(first, of, dtype or first.dtype)

    operation.def_abstract_eval(abstract)

    def lowered(context: Any, *operands: Any):
        module, (first, *_) = context.module_context, context.avals_in
        is_one = getattr(module.axis_context, "num_devices", 0) == 1
        is_apart = first.sharding.mesh.axis_names and is_whole(first)
        is_here = (
            (is_one or is_apart)
            and tuple(module.platforms) == ("cpu",)
            and not getattr(module.lowering_parameters, "for_export", True)
        )
        chosen = mlir.lower_fun(ours if is_here else xla, multiple_results=False)
        return chosen(context, *operands)

    mlir.register_lowering(operation, lowered)
    mapped = functools.partial(_mapped, operation, maps)
    batching.primitive_batchers[operation] = mapped
    return operation


def like(kind: Any, shape: tuple[int, ...], dtype: DTypeLike) -> ShapedArray:
    """Returns the type of an array like another, but for shape and dtype."""
    sharding = kind.sharding.update(spec=PartitionSpec(*[None] * len(shape)))
    return ShapedArray(shape, jnp.dtype(dtype), sharding=sharding)


def _mapped(
    operation: Primitive, maps: int, arrays: Sequence[Any], axes: Sequence[Any]
) -> tuple[jax.Array, int]:
    """Applies an operation to all slices of arrays, for `jax.vmap`.

    Where all of its maps are sliced and nothing else, as more images at once.
    """
    are_sliced = [axis is not None for axis in axes]
    moved = [
        array if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    if maps and are_sliced == [i < maps for i in range(len(arrays))]:
        count, batch = moved[0].shape[:2]
        images = [a.reshape(count * batch, *a.shape[2:]) for a in moved[:maps]]
        result = operation.bind(*images, *moved[maps:])
        return result.reshape(count, batch, *result.shape[1:]), 0

    def one(slices):
        rest = iter(slices)
        pairs = zip(moved, are_sliced, strict=True)
        return operation.bind(*(next(rest) if sliced else a for a, sliced in pairs))

    sliced = [a for a, is_sliced in zip(moved, are_sliced, strict=True) if is_sliced]
    return jax.lax.map(one, sliced), 0


def is_whole(kind: Any) -> bool:
    """Whether arrays are whole on the device that computes, as far as types say."""
    mesh, types = kind.sharding.mesh, set(kind.sharding.mesh.axis_types)
    if mesh.size > 1 and types - {AxisType.Manual}:
        return False
    # An explicit mesh of one device names the axes that results would be spread along.
    if AxisType.Explicit in types and any(kind.sharding.spec):
        return False
    # Of what varies, under `check_vma`, the operations below know nothing.
    return not varying.axes(kind)
