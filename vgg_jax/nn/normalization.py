"""Batch normalisation as one function with a hand-written gradient.

Ioffe & Szegedy (2015). Value, gradient, parameters and running averages are those of
`flax.linen.BatchNorm` (`tests/test_norm.py`); autodiff of that one keeps the centred
and the normalised input in float32, several passes over the largest arrays of a step,
where this one keeps its input and reads it twice.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

_AXES = (0, 1, 2)  # of [B, H, W, C]: all but the channels
EPSILON = 1e-5  # added to the variance


def _moments(x):
    """Mean and biased variance of each channel, float32 `[C]`."""
    x = x.astype(jnp.float32)
    mean, square = x.mean(_AXES), jnp.square(x).mean(_AXES)
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def _affine(x, factor, offset):
    return (x.astype(jnp.float32) * factor + offset).astype(x.dtype)


def normalize(x, mean, variance, scale, bias):
    """`(x - mean) / sqrt(variance + EPSILON) * scale + bias` in the dtype of `x`."""
    factor = scale * lax.rsqrt(variance + EPSILON)
    return _affine(x, factor, bias - mean * factor)


@jax.custom_vjp
def batch_norm(x, scale, bias):
    """Normalised by the statistics of the batch, which are returned too.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        scale: float32 `[C]`.
        bias: float32 `[C]`.

    Returns:
        `[B, H, W, C]` in the dtype of `x`; mean and biased variance, float32 `[C]`,
        through which no gradient flows.
    """
    return _forward(x, scale, bias)[0]


def _forward(x, scale, bias):
    mean, variance = _moments(x)
    y = normalize(x, mean, variance, scale, bias)
    return (y, mean, variance), (x, scale, mean, variance)


def _backward(residuals, cotangents):
    x, scale, mean, variance = residuals
    g = cotangents[0]
    inverse = lax.rsqrt(variance + EPSILON)
    count = x.size // x.shape[-1]
    high = g.astype(jnp.float32)
    dbias = high.sum(_AXES)
    # sum(g * xhat), from sums over g and x themselves
    dscale = ((high * x.astype(jnp.float32)).sum(_AXES) - mean * dbias) * inverse
    slope = -inverse * dscale / count  # of -xhat * mean(g * xhat), in x
    offset = -dbias / count - slope * mean
    dx = scale * inverse * (high + slope * x.astype(jnp.float32) + offset)
    return dx.astype(x.dtype), dscale, dbias


batch_norm.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
    """`flax.linen.BatchNorm` over the channels of `[B, H, W, C]`.

    Attributes:
        use_scale: whether a scale is learnt; if not, it is 1.
        momentum: share of the running averages that stays at each update.
    """

    use_scale: bool = True
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, *, train: bool):
        shape = x.shape[-1:]
        scale = jnp.ones(shape)
        if self.use_scale:
            scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        average = partial(self.variable, "batch_stats")
        mean = average("mean", jnp.zeros, shape, jnp.float32)
        variance = average("var", jnp.ones, shape, jnp.float32)
        if not train:
            return normalize(x, mean.value, variance.value, scale, bias)
        y, *moments = batch_norm(x, scale, bias)
        if not self.is_initializing():
            for running, new in zip((mean, variance), moments, strict=True):
                old = self.momentum * running.value
                running.value = old + (1 - self.momentum) * new
        return y
