"""2x2 pooling, stride 2, as the paper uses it after every stage."""

import jax
import jax.numpy as jnp
from jax import lax

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # the order `lax.reduce_window` looks in


def _slices(x):
    """The four pixels of every window; an odd last row or column is left out."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, i:height:2, j:width:2] for i, j in _CORNERS]


def average_pool(x: jax.Array) -> jax.Array:
    """Mean of each 2x2 window: `[B, H, W, C]` -> `[B, H // 2, W // 2, C]`."""
    a, b, c, d = _slices(x)
    return (a + b + c + d) / 4


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maximum of each 2x2 window: `[B, H, W, C]` -> `[B, H // 2, W // 2, C]`.

    Value and gradient equal those of `flax.linen.max_pool`, ties included (the first
    maximum takes the gradient), without XLA's select-and-scatter, which is slow on
    CPU.
    """
    a, b, c, d = _slices(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _forward(x):
    y = max_pool(x)
    return y, (x, y)


def _backward(residuals, g):
    x, y = residuals
    free = jnp.ones(y.shape, bool)  # windows whose gradient is still to be given
    parts = []
    for corner in _slices(x):
        first = free & (corner == y)
        parts.append(jnp.where(first, g, 0))
        free &= ~first
    batch, height, width, channels = g.shape
    rows = [jnp.stack(parts[i : i + 2], axis=3) for i in (0, 2)]
    dx = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, channels)
    odd = [(0, n - m, 0) for n, m in zip(x.shape, dx.shape, strict=True)]
    return (lax.pad(dx, jnp.zeros((), dx.dtype), odd),)


max_pool.defvjp(_forward, _backward)
