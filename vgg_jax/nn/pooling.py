"""2x2 pooling with stride 2, as the paper uses it after every stage."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from vgg_jax.errors import choose
from vgg_jax.nn import emitted
from vgg_jax.nn.apart import apart
from vgg_jax.nn.by_platform import by_platform
from vgg_jax.nn.operations import operation, suits

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # the order `lax.reduce_window` looks in


def _corners(x: jax.Array) -> list[jax.Array]:
    """Returns the four pixels of every window, each `[B, H // 2, W // 2, C]`.

    An odd last row or column is left out. You may be tempted to write
    `x[:, i:height:2, j:width:2]`: where the batch is symbolic that becomes a gather.
    """
    batch, height, width, channels = x.shape
    high, wide = height // 2 * 2, width // 2 * 2
    end = (batch, high, wide, channels)
    starts = [(0, min(i, high), min(j, wide), 0) for i, j in _CORNERS]
    return [lax.slice(x, start, end, (1, 2, 2, 1)) for start in starts]


def average_pool(x: jax.Array) -> jax.Array:
    """Returns the mean of each 2x2 window; an odd last row or column is left out.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.

    Returns:
        `[B, H // 2, W // 2, C]` in the dtype of `x`.

    >>> average_pool(jnp.arange(8.0).reshape(1, 2, 4, 1)).ravel().tolist()
    [2.5, 4.5]
    """
    a, b, c, d = _corners(x)
    return (a + b + c + d) / 4


@jax.custom_jvp
def max_pool(x: jax.Array) -> jax.Array:
    """Returns the maximum of each 2x2 window; an odd last row or column is left out.

    Value and derivatives equal those of `flax.linen.max_pool`, ties included (the first
    maximum takes the gradient), without XLA's select-and-scatter, which is slow on
    CPU. Differentiable in both modes, any number of times; `pool2d` takes a faster
    form on CPU.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.

    Returns:
        `[B, H // 2, W // 2, C]` in the dtype of `x`.

    >>> max_pool(jnp.arange(8.0).reshape(1, 2, 4, 1)).ravel().tolist()
    [5.0, 7.0]
    """
    return _maximum(x)


def _maximum(x: jax.Array) -> jax.Array:
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


@max_pool.defjvp
def _max_pool_jvp(primals, tangents):
    """Passes on the tangent of the first maximum; transposed, this is a selection.

    It compares the pixels with one another, never with their maximum: XLA may compute
    both from what they are made of, and round them otherwise, so that none is equal.

    You may be tempted to sum `jnp.where(first[i], corner[i], 0)` over the corners: the
    transpose of a strided slice scatters, and took 1.5 to 3 times as long (jax 0.12).
    """
    (x,), (dx,) = primals, tangents
    y = max_pool(x)
    greatest, *others = _corners(x)
    first = jnp.zeros(y.shape, jnp.int8)
    for i, corner in enumerate(others, 1):
        first = jnp.where(corner > greatest, jnp.int8(i), first)
        greatest = jnp.maximum(greatest, corner)
    first = jnp.where(jnp.isnan(greatest), jnp.int8(len(_CORNERS)), first)  # none
    i, j = (lax.broadcasted_iota(jnp.int8, (1, 1, 2, 1, 2, 1), n) for n in (2, 4))
    chosen = first[:, :, None, :, None] == 2 * i + j
    return y, jnp.where(chosen, _windows(dx), 0).sum((2, 4))


def _windows(x: jax.Array) -> jax.Array:
    """Returns the windows, `[B, H // 2, 2, W // 2, 2, C]`.

    One axis at a time: meshes of explicit axes refuse to split or join two at once.
    """
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width]
    rows = x.reshape(batch, height, 2, 2 * width, channels)
    return rows.reshape(batch, height, 2, width, 2, channels)


def _is_fused(x: jax.Array) -> bool:
    even = not (x.shape[1] % 2 or x.shape[2] % 2)
    return even and suits(x)


@jax.custom_vjp
def _max_pool_on_cpu(x: jax.Array) -> jax.Array:
    """`max_pool` with its gradient spelled out, the same bits.

    It looks for the first maximum in the backward pass, where the transpose of the
    tangent reads a mask that the forward pass wrote, which makes a whole training step
    slower on CPU (compare the two with `benchmarks/revisions.py`).

    The maximum is taken again then, of the pixels that were kept. You may be tempted to
    keep the output and look for it among them: XLA may compute it from what the pixels
    are made of, and so round it otherwise, and the gradient of a window is lost.
    """
    return _forward(x)[0]


def _forward(x):
    return _fused_maximum(x) if _is_fused(x) else _maximum(x), x


def _backward(x, g):
    to_it = _fused_to_first_maximum if _is_fused(x) else _to_first_maximum
    return (to_it(x, g),)


@apart  # reads x, which the layer before keeps, rather than what x was made of
def _to_first_maximum(x, g):
    y = _maximum(x)
    free = jnp.ones(y.shape, bool)  # windows whose gradient is still to be given
    parts = []
    for corner in _corners(x):
        first = free & (corner == y)
        parts.append(jnp.where(first, g, 0))
        free &= ~first
    batch, height, width, channels = g.shape
    rows = [jnp.stack(parts[i : i + 2], axis=3) for i in (0, 2)]
    dx = jnp.stack(rows, axis=2).reshape(batch, 2 * height, width, 2, channels)
    dx = dx.reshape(batch, 2 * height, 2 * width, channels)
    odd = [(0, n - m, 0) for n, m in zip(x.shape, dx.shape, strict=True)]
    return lax.pad(dx, jnp.zeros((), dx.dtype), odd)


_max_pool_on_cpu.defvjp(_forward, _backward)


def _call_maximum(x):
    batch, height, width, channels = x.shape
    shape = batch, height // 2, width // 2, channels
    return emitted.call("max_pool", None, x.dtype.itemsize, shape, x.dtype, x)


def _call_to_first_maximum(x, g):
    size = x.dtype.itemsize
    return emitted.call("to_first_maximum", None, size, x.shape, x.dtype, x, g)


_maximum_operation = operation(
    "max_pool_2x2",
    _call_maximum,
    _maximum,
    lambda x: (x[0], x[1] // 2, x[2] // 2, x[3]),
)
_gradient_operation = operation(
    "to_first_maximum_2x2",
    _call_to_first_maximum,
    _to_first_maximum,
    lambda x, g: x,
    maps=2,
)


@jax.custom_jvp
def _fused_maximum(x):
    return _maximum_operation.bind(x)


@_fused_maximum.defjvp
def _fused_maximum_jvp(primals, tangents):
    return _fused_maximum(*primals), jax.jvp(max_pool, primals, tangents)[1]


@jax.custom_jvp
def _fused_to_first_maximum(x, g):
    return _gradient_operation.bind(x, g)


@_fused_to_first_maximum.defjvp
def _fused_to_first_maximum_jvp(primals, tangents):
    (x, g), (_, dg) = primals, tangents
    return _fused_to_first_maximum(x, g), _to_first_maximum(x, dg)


def _fast_max_pool(x: jax.Array) -> jax.Array:
    return by_platform(x, cpu=_max_pool_on_cpu, default=max_pool)


POOLS: dict[str, dict[str, Callable[[jax.Array], jax.Array]]] = {
    "max": {"auto": _fast_max_pool, "lax": max_pool},
    "average": {"auto": average_pool, "lax": average_pool},
}


def pool2d(x: jax.Array, *, kind: str, implementation: str = "auto") -> jax.Array:
    """Pools each 2x2 window; an odd last row or column is left out.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        kind: "max" or "average".
        implementation: "auto" or "lax", as for `conv.conv2d`: forward-mode derivatives
            on CPU need "lax".

    Returns:
        `[B, H // 2, W // 2, C]` in the dtype of `x`.

    Raises:
        ConfigError: `kind` or `implementation` is unknown.

    >>> pool2d(jnp.arange(8.0).reshape(1, 2, 4, 1), kind="max").ravel().tolist()
    [5.0, 7.0]
    """
    return choose(choose(POOLS, kind, "kind"), implementation, "implementation")(x)
