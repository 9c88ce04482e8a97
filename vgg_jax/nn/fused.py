"""Convolution and sums on CPU by kernels of our own, where llvmlite is there.

Each pass of a 3x3 convolution (`tiles.py`) is an operation of JAX that is linear in
both arguments, so that its derivatives, of any order and mode, are made of the three.

The operations are these kernels in a program for one CPU that is compiled here. In one
that is exported, or spread over devices, they are XLA's own: the kernels are machine
code of this process.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.export import is_symbolic_dim
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, PartitionSpec
from jax.typing import DTypeLike

from vgg_jax import machine
from vgg_jax.nn import direct

if TYPE_CHECKING:
    from vgg_jax.nn.tiles import Algorithm, Registers

# Pieces at least, for the threads, where there is enough to do.
_GROUPS = max(8, 2 * (os.cpu_count() or 1))


def registers() -> "Registers":
    """Returns the layout of products that this CPU's kernels have."""
    from vgg_jax.nn import tiles

    return tiles.REGISTERS[machine.fused_kind()]


def suits(x: jax.Array) -> bool:
    """Returns whether maps like these are convolved and summed by the kernels.

    That is on one device, or on each inside `jax.shard_map(..., check_vma=False)`,
    where `machine.has_fused` says so.
    """
    kind = jax.typeof(x)
    return (
        x.dtype in (jnp.float32, jnp.bfloat16)
        and not is_symbolic_dim(x.shape[0])
        and _is_whole(kind)
        and not kind.mat.varying  # check_vma=True, of which these know nothing
        and machine.has_fused(x.dtype.name)
    )


def _is_whole(kind: Any) -> bool:
    """Whether arrays are whole on the device that computes, as far as types say."""
    return all(axis == AxisType.Manual for axis in kind.sharding.mesh.axis_types)


def conv3x3(x: jax.Array, w: jax.Array, b: jax.Array, *kernels: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zero padding 1, and adds `b`, all in float32.

    Args:
        x: `[B, H, W, C]`, which the kernels suit (`suits`).
        w: `[3, 3, C, K]`, dtype of `x`.
        b: `[K]`, dtype of `x`.
        *kernels: what `kernels` returned, or nothing; they stand in for `w`, by which
            there is no gradient then.

    Returns:
        `[B, H, W, K]` in the dtype of `x`, rounded once.
    """
    return _biased(x, w, b, *kernels)


def kernels(x: jax.Array, w: jax.Array) -> list[jax.Array]:
    """Returns what `conv3x3` computes of the kernel first, for inputs like `x`.

    One array, in float32, of up to four times as many elements as the kernel.
    """
    return [_kernels_now(w, x.shape)]


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the maximum of each 2x2 window, by XLA's FFI; `operation` makes it one.

    Args:
        x: `[B, H, W, C]`, which the kernels suit; H and W are even.

    Returns:
        `[B, H / 2, W / 2, C]`, NaN where a window has NaN.
    """
    batch, height, width, channels = x.shape
    shape = batch, height // 2, width // 2, channels
    return _call("max_pool", None, x.dtype.itemsize, shape, x.dtype, x)


def to_first_maximum(x: jax.Array, g: jax.Array) -> jax.Array:
    """Returns the gradient of `max_pool`, as it, from that of its result.

    The first maximum of a window gets all of it, no pixel of one with NaN any.
    """
    size = x.dtype.itemsize
    return _call("to_first_maximum", None, size, x.shape, x.dtype, x, g)


def sum_over_pixels(x: jax.Array) -> jax.Array:
    """Sums `[B, H, W, C]` over all axes but the last, in float32: `[C]`, dtype of x."""
    return _pixel_sum.bind(x)


# The kernels


@functools.cache
def _registered(
    what: str, layout: "Registers", algorithm: "Algorithm | None", option: int
) -> str:
    """Compiles a kernel, once, and returns the name that XLA knows it by.

    Args:
        what: one of `_kernel_table`.
        layout: what it is made for.
        algorithm: of a convolution.
        option: the bytes of an element; of kernels, whether they are flipped.
    """
    from llvmlite import ir

    from vgg_jax.nn import ffi

    ranks, pieces, body = _kernel_table(layout, algorithm, option)[what]
    parts = "vgg_jax", what, algorithm.name if algorithm else "", option, layout.lanes
    name = "_".join(str(part) for part in parts if part != "")
    module = ir.Module(name)
    ffi.handler(module, name, layout.lanes, ranks, pieces, body)
    ffi.register(module, [name])
    return name


def _kernel_table(layout, algorithm, option):
    """Returns (numbers of axes, number of pieces, what a piece is) by name."""
    from vgg_jax.nn import sums, tiles, windows

    of = functools.partial
    both = {"algorithm": algorithm, "registers": layout}
    first_of_result = lambda _, __, results: results[0].dims[0]
    return {
        "kernels": (
            ([4], [4]),
            first_of_result,
            of(tiles.kernels, flipped=bool(option), **both),
        ),
        "convolve": (
            ([4, 4, 1, 1], [4]),
            of(tiles.convolve_pieces, **both),
            of(tiles.convolve, size=option, **both),
        ),
        "by_kernel": (
            ([4, 4], [4]),
            of(tiles.by_kernel_pieces, **both),
            of(tiles.by_kernel, size=option, **both),
        ),
        "sum": (([2], [2]), first_of_result, of(sums.over_pixels, size=option)),
        "max_pool": (([4], [4]), windows.pieces, of(windows.maximum, size=option)),
        "to_first_maximum": (
            ([4, 4], [4]),
            windows.pieces,
            of(windows.to_first_maximum, size=option),
        ),
    }


def _call(
    what: str,
    algorithm: "Algorithm | None",
    option: int,
    shape: Sequence[int],
    dtype: DTypeLike,
    *arguments: jax.Array,
) -> jax.Array:
    name = _registered(what, registers(), algorithm, option)
    call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(tuple(shape), dtype))
    return call(*arguments)


def _of_tiles(shape: Sequence[int]) -> tuple["Algorithm", int]:
    """Returns the algorithm for maps `[B, H, W, C]`, and how many blocks of tiles."""
    from vgg_jax.nn import tiles

    batch, height, width, _ = shape
    algorithm = tiles.PAIRS if max(height, width) <= 2 else tiles.F4
    count = batch * -(-height // algorithm.tile) * -(-width // algorithm.tile)
    return algorithm, -(-count // registers().tiles)


def _transformed(shape: Sequence[int], w: jax.Array, flipped: bool) -> jax.Array:
    (algorithm, _), layout = _of_tiles(shape), registers()
    inputs, outputs = w.shape[:1:-1] if flipped else w.shape[2:]
    panels, vectors = -(-outputs // layout.panel), -(-inputs // layout.lanes)
    panels_shape = panels, algorithm.products, vectors * layout.lanes, layout.panel
    w = w.astype(jnp.float32)
    return _call("kernels", algorithm, flipped, panels_shape, jnp.float32, w)


def _convolved(x: jax.Array, u: jax.Array, b: jax.Array) -> jax.Array:
    algorithm, blocks = _of_tiles(x.shape)
    groups = jnp.zeros(max(1, min(u.shape[0], -(-_GROUPS // max(1, blocks)))), jnp.int8)
    arguments = x, u, b.astype(jnp.float32), groups
    shape = *x.shape[:3], len(b)
    return _call("convolve", algorithm, x.dtype.itemsize, shape, x.dtype, *arguments)


def _without_bias(x: jax.Array, w: jax.Array, *, flipped: bool) -> jax.Array:
    b = jnp.zeros(w.shape[2 if flipped else 3], jnp.float32)
    return _convolved(x, _transformed(x.shape, w, flipped), b)


def _kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    from vgg_jax.nn import tiles

    algorithm, blocks = _of_tiles(x.shape)
    channels, features = x.shape[-1], g.shape[-1]
    groups = max(1, min(blocks, -(-_GROUPS // -(-channels // tiles.GROUP))))
    shape = groups, 9, channels, features
    dw = _call("by_kernel", algorithm, x.dtype.itemsize, shape, jnp.float32, x, g)
    return dw.sum(0).reshape(3, 3, channels, features).astype(x.dtype)


def _summed(x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])
    shape = max(1, min(_GROUPS, len(rows))), x.shape[-1]
    sums = _call("sum", None, x.dtype.itemsize, shape, jnp.float32, rows)
    return sums.sum(0).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=1)
def _kernels_now(w, shape):
    return _transformed(shape, w, flipped=False)


# The operations


def operation(
    name: str,
    ours: Callable[..., jax.Array],
    xla: Callable[..., jax.Array],
    shape: Callable[..., tuple[int, ...]],
) -> Primitive:
    """Returns an operation of JAX: `ours` in a program for one CPU here, else `xla`.

    Args:
        name: of it, as in a jaxpr.
        ours: of arrays to one.
        xla: the same by XLA alone.
        shape: of the shapes of all arrays to that of the result, which has the type
            of the first.
    """
    operation = Primitive(name)
    run = jax.jit(operation.bind)
    operation.def_impl(run)

    def abstract(first: Any, *rest: Any):
        return _like(first, shape(first.shape, *(a.shape for a in rest)))

    operation.def_abstract_eval(abstract)

    def lowered(context: Any, *operands: Any):
        module, (first, *_) = context.module_context, context.avals_in
        is_one = getattr(module.axis_context, "num_devices", 1) == 1
        is_apart = first.sharding.mesh.axis_names and _is_whole(first)
        is_here = (
            (is_one or is_apart)
            and tuple(module.platforms) == ("cpu",)
            and not module.lowering_parameters.for_export
        )
        chosen = mlir.lower_fun(ours if is_here else xla, multiple_results=False)
        return chosen(context, *operands)

    mlir.register_lowering(operation, lowered)
    batching.primitive_batchers[operation] = functools.partial(_mapped, operation)
    return operation


def _like(kind: Any, shape: tuple[int, ...]) -> ShapedArray:
    """Returns the type of an array of some shape, otherwise like another."""
    sharding = kind.sharding.update(spec=PartitionSpec(*[None] * len(shape)))
    return ShapedArray(shape, kind.dtype, sharding=sharding)


def _mapped(operation: Primitive, arrays: Sequence[Any], axes: Sequence[Any]):
    """Applies an operation to slice after slice of the arrays, for `jax.vmap`."""
    many = [
        jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
        if axis is not None
    ]

    def one(slices):
        rest = iter(slices)
        pairs = zip(arrays, axes, strict=True)
        return operation.bind(*(a if n is None else next(rest) for a, n in pairs))

    return jax.lax.map(one, many), 0


_convolution = operation(
    "convolution_by_tiles",
    functools.partial(_without_bias, flipped=False),
    direct.plain,
    lambda x, w: (*x[:3], w[3]),
)
_input_gradient = operation(
    "input_gradient_by_tiles",
    functools.partial(_without_bias, flipped=True),
    direct.by_flipped_kernel,
    lambda g, w: (*g[:3], w[2]),
)
_of_kernel = operation(
    "kernel_gradient_by_tiles",
    _kernel_gradient,
    lambda x, g: direct.by_product(x, g, 3),
    lambda x, g: (3, 3, x[3], g[3]),
)
ad.defbilinear(
    _convolution,
    lambda ct, x, w: _input_gradient.bind(ct, w),
    lambda ct, x, w: _of_kernel.bind(x, ct),
)
ad.defbilinear(
    _input_gradient,
    lambda ct, g, w: _convolution.bind(ct, w),
    lambda ct, g, w: _of_kernel.bind(ct, g),
)
ad.defbilinear(
    _of_kernel,
    lambda ct, x, g: _input_gradient.bind(g, ct),
    lambda ct, x, g: _convolution.bind(x, ct),
)

_biased_convolution = operation(
    "convolution_by_tiles_with_bias",
    lambda x, w, b, u=None: _convolved(
        x, _transformed(x.shape, w, False) if u is None else u, b
    ),
    lambda x, w, b, *_: direct.plain(x, w) + b[None, None, None],
    lambda x, w, *_: (*x[:3], w[3]),
)


@jax.custom_jvp
def _biased(x, w, b, *prepared):
    return _biased_convolution.bind(x, w, b, *prepared)


@functools.partial(_biased.defjvp, symbolic_zeros=True)
def _biased_jvp(primals, tangents):
    x, w, *_ = primals
    dx, dw, db, *_ = (None if type(t) is SymbolicZero else t for t in tangents)
    y, parts = _biased(*primals), []
    if dx is not None:
        parts.append(_convolution.bind(dx, w))
    if dw is not None:
        parts.append(_convolution.bind(x, dw))
    if db is not None:
        parts.append(_spread.bind(db, pixels=y.shape[:3]))
    return y, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(y)


# `[K]` at each of so many pixels, such that its transpose is `_pixel_sum`.
_spread = Primitive("bias_of_pixels")
_spread_by_xla = lambda b, *, pixels: jnp.broadcast_to(b, (*pixels, len(b)))
_spread.def_impl(_spread_by_xla)
_spread.def_abstract_eval(lambda b, *, pixels: _like(b, (*pixels, *b.shape)))
mlir.register_lowering(_spread, mlir.lower_fun(_spread_by_xla, multiple_results=False))
ad.deflinear2(_spread, lambda ct, b, *, pixels: [_pixel_sum.bind(ct)])


def _spread_mapped(arrays, axes, *, pixels):
    (b,), (axis,) = arrays, axes
    return jax.vmap(functools.partial(_spread_by_xla, pixels=pixels), axis)(b), 0


batching.primitive_batchers[_spread] = _spread_mapped

_pixel_sum = operation(
    "sum_over_pixels",
    _summed,
    lambda x: jnp.sum(x, (0, 1, 2), jnp.float32).astype(x.dtype),
    lambda x: (x[3],),
)
ad.deflinear2(_pixel_sum, lambda ct, x: [jnp.broadcast_to(ct, x.aval.shape)])
