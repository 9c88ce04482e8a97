"""Sums over the pixels of maps, as bias gradients and batch normalisation take them."""

import functools

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from vgg_jax.nn import emitted
from vgg_jax.nn.operations import like, operation

_AXES = (0, 1, 2)  # of [B, H, W, C]: all but the channels


def total(x: jax.Array) -> jax.Array:
    """Sums `[B, H, W, C]` over all axes but the last, in float32: `[C]`, dtype of x."""
    return _total.bind(x)


def total_and_product(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sums of `y` and of `x * y` over all axes but the last.

    Args:
        x: `[B, H, W, C]`, which the kernels suit (`operations.has_kernels`).
        y: as `x`.

    Returns:
        Two float32 `[C]`; products and sums are float32.
    """
    totals = _with_product.bind(x, y)
    return totals[0], totals[1]


def spread(b: jax.Array, pixels: tuple[int, ...]) -> jax.Array:
    """Returns `[K]` at each of `[B, H, W]` pixels; its transpose is `total`."""
    return _spread.bind(b, pixels=pixels)


def _total_by_kernel(x):
    totals = _call("sum", (x.shape[3],), x)
    return totals.astype(x.dtype)


def _with_product_by_kernel(x, y):
    return _call("sum_with_product", (2, x.shape[3]), x, y)


def _call(what: str, shape: tuple[int, ...], *maps: jax.Array) -> jax.Array:
    rows = [x.reshape(-1, x.shape[-1]) for x in maps]
    groups = max(1, min(emitted.GROUPS, len(rows[0])))
    size = maps[0].dtype.itemsize
    return emitted.call(what, None, size, (groups, *shape), jnp.float32, *rows).sum(0)


_total = operation(
    "sum_over_pixels",
    _total_by_kernel,
    lambda x: jnp.sum(x, _AXES, jnp.float32).astype(x.dtype),
    lambda x: (x[3],),
    maps=0,
)
ad.deflinear2(_total, lambda ct, x: [jnp.broadcast_to(ct, x.aval.shape)])


_with_product = operation(
    "sums_with_product_over_pixels",
    _with_product_by_kernel,
    lambda x, y: _with_product_by_xla(x.astype(jnp.float32), y.astype(jnp.float32)),
    lambda x, _: (2, x[3]),
    maps=0,
    dtype=jnp.float32,
)
_with_product_by_xla = lambda x, y: jnp.stack([y.sum(_AXES), (x * y).sum(_AXES)])


def _with_product_jvp(primals, tangents):
    (x, y), (dx, dy), parts = primals, tangents, []
    if type(dy) is not ad.Zero:
        parts.append(_with_product.bind(x, dy))
    if type(dx) is not ad.Zero:
        parts.append(_with_product.bind(y, dx).at[0].set(0))
    return _with_product.bind(x, y), functools.reduce(jnp.add, parts)


def _with_product_transposed(ct, x, y):
    """By `y`: no other argument is ever a tangent."""
    if type(ct) is ad.Zero:
        return None, ad.Zero(y.aval)
    total, product = (jnp.expand_dims(row, _AXES) for row in ct)
    at_pixels = total + product * x.astype(jnp.float32)
    return None, at_pixels.astype(y.aval.dtype)


ad.primitive_jvps[_with_product] = _with_product_jvp
ad.primitive_transposes[_with_product] = _with_product_transposed


_spread = Primitive("bias_of_pixels")
_spread_by_xla = lambda b, *, pixels: jnp.broadcast_to(b, (*pixels, len(b)))
_spread.def_impl(_spread_by_xla)
_spread.def_abstract_eval(lambda b, *, pixels: like(b, (*pixels, *b.shape), b.dtype))
mlir.register_lowering(_spread, mlir.lower_fun(_spread_by_xla, multiple_results=False))
ad.deflinear2(_spread, lambda ct, b, *, pixels: [_total.bind(ct)])


def _spread_mapped(arrays, axes, *, pixels):
    (b,), (axis,) = arrays, axes
    return jax.vmap(functools.partial(_spread_by_xla, pixels=pixels), axis)(b), 0


batching.primitive_batchers[_spread] = _spread_mapped
