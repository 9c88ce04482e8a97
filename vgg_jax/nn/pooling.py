"""2x2 pooling with stride 2, as the paper uses it after every stage."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # the order `lax.reduce_window` looks in


def _corners(x: jax.Array) -> list[jax.Array]:
    """Returns the four pixels of every window, each `[B, H // 2, W // 2, C]`.

    An odd last row or column is left out.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, i:height:2, j:width:2] for i, j in _CORNERS]


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


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Returns the maximum of each 2x2 window; an odd last row or column is left out.

    Value and gradient equal those of `flax.linen.max_pool`, ties included (the first
    maximum takes the gradient), without XLA's select-and-scatter, which is slow on
    CPU. Differentiable once, in reverse mode.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.

    Returns:
        `[B, H // 2, W // 2, C]` in the dtype of `x`.

    >>> max_pool(jnp.arange(8.0).reshape(1, 2, 4, 1)).ravel().tolist()
    [5.0, 7.0]
    """
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _forward(x):
    y = max_pool(x)
    return y, (x, y)


def _backward(residuals, g):
    x, y = residuals
    free = jnp.ones(y.shape, bool)  # windows whose gradient is still to be given
    parts = []
    for corner in _corners(x):
        first = free & (corner == y)
        parts.append(jnp.where(first, g, 0))
        free &= ~first
    batch, height, width, channels = g.shape
    rows = [jnp.stack(parts[i : i + 2], axis=3) for i in (0, 2)]
    dx = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, channels)
    odd = [(0, n - m, 0) for n, m in zip(x.shape, dx.shape, strict=True)]
    return (lax.pad(dx, jnp.zeros((), dx.dtype), odd),)


max_pool.defvjp(_forward, _backward)


POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "max": max_pool,
    "average": average_pool,
}
