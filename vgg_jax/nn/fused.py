"""Convolution and sums on CPU by kernels of our own, where llvmlite is there.

Each pass of a 3x3 convolution (`tile_convolution.py`, `tile_gradient.py`) is an
operation of JAX that is linear in both arguments, so that its derivatives, of any order
and mode, are made of the three.

The operations are these kernels in a program for one CPU that is compiled here. In one
that is exported, or spread over devices, they are XLA's own: the kernels are machine
code of this process.
"""

import functools
import threading
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
from vgg_jax.nn import by_xla

if TYPE_CHECKING:
    from vgg_jax.nn.algorithms import Algorithm, Registers

# Pieces at least, where there is enough to do. Not as many as this machine has cores:
# sums over them would have other bits elsewhere.
_GROUPS = 16


def registers() -> "Registers":
    """Returns the layout of products that this CPU's kernels have."""
    from vgg_jax.nn import algorithms

    return algorithms.REGISTERS[machine.fused_kind()]


def suits(x: jax.Array, *others: jax.Array) -> bool:
    """Returns whether maps `x` are convolved, summed and pooled by the kernels.

    That is where `machine.has_fused` says so, and where no type says that an array is
    spread over devices; inside `jax.shard_map` only with `check_vma=False`.
    """
    return (
        x.dtype in (jnp.float32, jnp.bfloat16)
        and not is_symbolic_dim(x.shape[0])
        and all(_is_whole(jax.typeof(a)) for a in (x, *others))
        and machine.has_fused(x.dtype.name)
    )


def _is_whole(kind: Any) -> bool:
    """Whether arrays are whole on the device that computes, as far as types say."""
    if any(axis != AxisType.Manual for axis in kind.sharding.mesh.axis_types):
        return False
    # Of what varies, under `check_vma`, the operations below know nothing.
    varying = getattr(getattr(kind, "mat", None), "varying", ())
    return not (varying or getattr(kind, "vma", ()))


def conv3x3(x: jax.Array, w: jax.Array, b: jax.Array, *kernels: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zero padding 1, and adds `b`; sums in float32.

    Args:
        x: `[B, H, W, C]`, which the kernels suit (`suits`).
        w: `[3, 3, C, K]`, dtype of `x`.
        b: `[K]`, dtype of `x`.
        *kernels: what `kernel` returned, or nothing; the value is computed by it then.

    Returns:
        `[B, H, W, K]` in the dtype of `x`; by the kernels rounded once.
    """
    return _biased(x, w, b, *kernels)


def kernel(x: jax.Array, w: jax.Array) -> jax.Array:
    """Returns what `conv3x3` computes of the kernel first, for inputs like `x`.

    That is in float32 and of four times as many elements as the kernel, more where
    there are few channels. Of `x` only shape and type are read.
    """
    return _kernel_now(w, tuple(x.shape))


def made(prepared: Sequence[jax.Array], x: jax.Array, w: jax.Array) -> bool:
    """Returns whether that is what `kernel` returned, for inputs like `x`."""
    if len(prepared) != 1:
        return False
    expected = jax.eval_shape(_kernel_now, w, tuple(x.shape))
    return (prepared[0].shape, prepared[0].dtype) == (expected.shape, expected.dtype)


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


_registering = threading.Lock()  # XLA takes a name once


def _registered(*kind: Any) -> str:
    with _registering:
        return _compiled(*kind)


@functools.cache
def _compiled(
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
    from vgg_jax.nn import sums, tile_convolution, tile_gradient, tile_kernels, windows

    of = functools.partial
    both = {"algorithm": algorithm, "registers": layout}
    first_of_result = lambda _, __, results: results[0].dims[0]
    return {
        "kernels": (
            ([4], [4]),
            first_of_result,
            of(tile_kernels.kernels, flipped=bool(option), **both),
        ),
        "convolve": (
            ([4, 4, 1, 1], [4]),
            of(tile_convolution.convolve_pieces, **both),
            of(tile_convolution.convolve, size=option, **both),
        ),
        "by_kernel": (
            ([4, 4], [4]),
            of(tile_gradient.by_kernel_pieces, **both),
            of(tile_gradient.by_kernel, size=option, **both),
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
    from vgg_jax.nn import algorithms

    batch, height, width, _ = shape
    algorithm = algorithms.PAIRS if max(height, width) <= 2 else algorithms.F4
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
    from vgg_jax.nn import algorithms

    algorithm, blocks = _of_tiles(x.shape)
    channels, features = x.shape[-1], g.shape[-1]
    channel_groups = max(1, -(-channels // algorithms.GROUP))
    groups = max(1, min(blocks, -(-_GROUPS // channel_groups)))
    shape = groups, 9, channels, features
    dw = _call("by_kernel", algorithm, x.dtype.itemsize, shape, jnp.float32, x, g)
    return dw.sum(0).reshape(3, 3, channels, features).astype(x.dtype)


def _summed(x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])
    shape = max(1, min(_GROUPS, len(rows))), x.shape[-1]
    sums = _call("sum", None, x.dtype.itemsize, shape, jnp.float32, rows)
    return sums.sum(0).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=1)
def _kernel_now(w, shape):
    return _transformed(shape, w, flipped=False)


# The operations


def operation(
    name: str,
    ours: Callable[..., jax.Array],
    xla: Callable[..., jax.Array],
    shape: Callable[..., tuple[int, ...]],
    maps: int = 1,
) -> Primitive:
    """Returns an operation of JAX: `ours` in a program for one CPU here, else `xla`.

    Args:
        name: of it, as in a jaxpr.
        ours: of arrays to one.
        xla: the same by XLA alone.
        shape: of the shapes of all arrays to that of the result, which has the type
            of the first.
        maps: how many arrays, the first, have a batch of images as their first axis, as
            the result then has; 0: none.
    """
    operation = Primitive(name)
    run = jax.jit(operation.bind)

    def compute(*arrays: jax.Array) -> jax.Array:
        # Either would bind the operation again, and so come back here for ever.
        with jax.disable_jit(False), jax.debug_nans(False):
            return run(*arrays)

    operation.def_impl(compute)

    def abstract(first: Any, *rest: Any):
        return _like(first, shape(first.shape, *(a.shape for a in rest)))

    operation.def_abstract_eval(abstract)

    def lowered(context: Any, *operands: Any):
        module, (first, *_) = context.module_context, context.avals_in
        is_one = getattr(module.axis_context, "num_devices", 0) == 1
        is_apart = first.sharding.mesh.axis_names and _is_whole(first)
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


def _like(kind: Any, shape: tuple[int, ...]) -> ShapedArray:
    """Returns the type of an array of some shape, otherwise like another."""
    sharding = kind.sharding.update(spec=PartitionSpec(*[None] * len(shape)))
    return ShapedArray(shape, kind.dtype, sharding=sharding)


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
        images = [a.reshape(-1, *a.shape[2:]) for a in moved[:maps]]
        result = operation.bind(*images, *moved[maps:])
        return result.reshape(count, batch, *result.shape[1:]), 0

    def one(slices):
        rest = iter(slices)
        pairs = zip(moved, are_sliced, strict=True)
        return operation.bind(*(next(rest) if sliced else a for a, sliced in pairs))

    sliced = [a for a, is_sliced in zip(moved, are_sliced, strict=True) if is_sliced]
    return jax.lax.map(one, sliced), 0


def _by_xla(x, w):
    return by_xla.algorithm(x, w)(x, w)


def _input_gradient_by_xla(g, w):
    x = jnp.zeros((*g.shape[:3], w.shape[2]), g.dtype)
    return jax.vjp(lambda x: _by_xla(x, w), x)[1](g)[0]


def _kernel_gradient_by_xla(x, g):
    w = jnp.zeros((3, 3, x.shape[3], g.shape[3]), x.dtype)
    return jax.vjp(lambda w: _by_xla(x, w), w)[1](g)[0]


_convolution = operation(
    "convolution_by_tiles",
    functools.partial(_without_bias, flipped=False),
    _by_xla,
    lambda x, w: (*x[:3], w[3]),
)
_input_gradient = operation(
    "input_gradient_by_tiles",
    functools.partial(_without_bias, flipped=True),
    _input_gradient_by_xla,
    lambda g, w: (*g[:3], w[2]),
)
_of_kernel = operation(
    "kernel_gradient_by_tiles",
    _kernel_gradient,
    _kernel_gradient_by_xla,
    lambda x, g: (3, 3, x[3], g[3]),
    maps=0,
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
    lambda x, w, b, *_: _by_xla(x, w) + b[None, None, None],
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
    maps=0,
)
ad.deflinear2(_pixel_sum, lambda ct, x: [jnp.broadcast_to(ct, x.aval.shape)])
