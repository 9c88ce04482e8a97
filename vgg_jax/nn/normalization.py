"""Batch normalisation as one function with a hand-written derivative.

Ioffe & Szegedy (2015). Value, gradient, parameters and running averages are those of
`flax.linen.BatchNorm` (`tests/nn/test_normalization.py`). Autodiff of that one keeps
the centred and the normalised input in float32, several passes over the largest arrays
of a step; this one keeps its input and reads it twice.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from vgg_jax.errors import choose
from vgg_jax.nn import pixel_sums
from vgg_jax.nn.apart import apart
from vgg_jax.nn.by_platform import by_platform
from vgg_jax.nn.operations import has_kernels

_AXES = (0, 1, 2)  # of [B, H, W, C]: all but the channels
EPSILON = 1e-5  # added to the variance


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the biased variance of each channel, float32 `[C]`."""
    x = x.astype(jnp.float32)
    mean, square = x.mean(_AXES), jnp.square(x).mean(_AXES)
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def _over_pixels(values: jax.Array) -> jax.Array:
    """Makes one value per channel, `[C]`, ready to meet `[B, H, W, C]`."""
    return jnp.expand_dims(values, _AXES)


def normalize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
) -> jax.Array:
    """Returns `(x - mean) / sqrt(variance + EPSILON) * scale + bias`.

    Computed in float32 as one multiplication and one addition per value.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        mean, variance, scale, bias: float32 `[C]`.

    Returns:
        `[B, H, W, C]` in the dtype of `x`.

    >>> x, one = jnp.full((1, 1, 1, 1), 5.0), jnp.ones(1)
    >>> y = normalize(x, mean=3 * one, variance=4 * one, scale=one, bias=one)
    >>> y.round(3).item()
    2.0
    """
    factor = scale * lax.rsqrt(variance + EPSILON)
    offset = bias - mean * factor
    y = x.astype(jnp.float32) * _over_pixels(factor) + _over_pixels(offset)
    return y.astype(x.dtype)


@jax.custom_jvp
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the statistics of the batch, and returns these too.

    Differentiable in both modes, any number of times.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        scale: float32 `[C]`.
        bias: float32 `[C]`.

    Returns:
        The normalised `[B, H, W, C]` in the dtype of `x`, and the mean and the biased
        variance of each channel, float32 `[C]`.

    >>> x = jnp.asarray([1.0, 3.0]).reshape(1, 1, 2, 1)
    >>> y, mean, variance = batch_norm(x, jnp.ones(1), jnp.zeros(1))
    >>> y.ravel().round(3).tolist(), mean.item(), variance.item()
    ([-1.0, 1.0], 2.0, 1.0)
    """
    mean, variance = _moments(x)
    return normalize(x, mean, variance, scale, bias), mean, variance


@batch_norm.defjvp
def _batch_norm_jvp(primals, tangents):
    """Differentiates `y = xhat * scale + bias`, `xhat = (x - mean) * inverse`.

    For each channel, with `u = scale * inverse * dx`:

        dy = u - mean(u) - xhat * mean(u * xhat) + xhat * dscale + dbias

    This map is symmetric in `dx` up to a factor per channel, so its transpose, the
    gradient, costs the same: two passes over `x` and the cotangent. The order of the
    sums decides how the transpose rounds, and so the bits of every training run.
    """
    (x, scale, _), (dx, dscale, dbias) = primals, tangents
    y, mean, variance = batch_norm(*primals)
    inverse = lax.rsqrt(variance + EPSILON)
    count = x.size // x.shape[-1]
    x, dx, dtype = x.astype(jnp.float32), dx.astype(jnp.float32), x.dtype
    u = _over_pixels(scale * inverse) * dx
    total = u.sum(_AXES)
    along = (u * x).sum(_AXES) - mean * total  # sum(u * xhat) / inverse
    slope = (dscale - inverse * (along / count)) * inverse  # of dy, as a function of x
    offset = dbias - total / count - mean * slope
    dy = u + _over_pixels(slope) * x + _over_pixels(offset)
    dmean = dx.mean(_AXES)
    dvariance = 2 * ((x * dx).mean(_AXES) - mean * dmean)
    return (y, mean, variance), (dy.astype(dtype), dmean, dvariance)


@jax.custom_vjp
def _batch_norm_on_cpu(
    x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm` with each sum over the pixels compiled apart.

    So XLA:CPU reads bfloat16 once per sum. Where several sums share the conversion to
    float32, it writes that to memory and keeps it until the backward pass.
    """
    return _forward(x, scale, bias)[0]


@apart
def _sum(x):
    return x.astype(jnp.float32).sum(_AXES)


@apart
def _sum_of_squares(x):
    return jnp.square(x.astype(jnp.float32)).sum(_AXES)


@apart
def _product(x, y):
    return x * y


@apart
def _sum_of_products_float32(x, y):
    return (x * y).sum(_AXES)


def _sum_of_products(x, y):
    if x.dtype == jnp.bfloat16:
        # Its product costs less than two conversions; its rounding averages out.
        return _sum(_product(x, y))
    return _sum_of_products_float32(x.astype(jnp.float32), y.astype(jnp.float32))


def _total_and_product(x, y):
    """Returns the sums of `y` and of `x * y`, float32 `[C]`."""
    if has_kernels(x, y):
        return pixel_sums.total_and_product(x, y)
    return _sum(y), _sum_of_squares(y) if x is y else _sum_of_products(x, y)


def _forward(x, scale, bias):
    count = x.size // x.shape[-1]
    total, squares = _total_and_product(x, x)
    mean = total / count
    variance = jnp.maximum(squares / count - jnp.square(mean), 0.0)
    y = normalize(x, mean, variance, scale, bias)
    return (y, mean, variance), (x, scale, mean, variance)


def _backward(residuals, cotangents):
    x, scale, mean, variance = residuals
    dy, dmean, dvariance = cotangents
    inverse = lax.rsqrt(variance + EPSILON)
    count = x.size // x.shape[-1]
    dbias, along = _total_and_product(x, dy)
    dscale = (along - mean * dbias) * inverse  # sum(dy * xhat)
    factor = scale * inverse
    slope = (2 * dvariance - factor * inverse * dscale) / count
    offset = (dmean - factor * dbias) / count - slope * mean
    return _line(dy, x, factor, slope, offset), dscale, dbias


@apart
def _line(dy, x, factor, slope, offset):
    """Returns `factor * dy + slope * x + offset`, all but `dy` and `x` per channel."""
    dx = _over_pixels(factor) * dy.astype(jnp.float32)
    dx += _over_pixels(slope) * x.astype(jnp.float32) + _over_pixels(offset)
    return dx.astype(x.dtype)


_batch_norm_on_cpu.defvjp(_forward, _backward)


def _fast_batch_norm(x, scale, bias):
    return by_platform(x, scale, bias, cpu=_batch_norm_on_cpu, default=batch_norm)


IMPLEMENTATIONS = {"auto": _fast_batch_norm, "lax": batch_norm}


class BatchNorm(nn.Module):
    """Normalises each channel of `[B, H, W, C]`, as `flax.linen.BatchNorm` does.

    Called with `train=True`, it normalises by the statistics of the batch and moves the
    running averages (except during `init`); with `train=False`, by the running
    averages. The parameters `scale` and `bias`, and the averages `mean` and `var` in
    the collection `batch_stats`, are float32 `[C]`; the output has the dtype of the
    input.

    Attributes:
        use_scale: whether a scale is learnt; if not, it is 1.
        momentum: share of the running averages that stays at each update, in [0, 1].
        implementation: "auto" or "lax", as for `conv.conv2d`: forward-mode derivatives
            on CPU need "lax".

    >>> norm, x = BatchNorm(momentum=0.5), jnp.ones((2, 4, 4, 3))
    >>> variables = norm.init(jax.random.key(0), x, train=True)
    >>> y, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    >>> updates["batch_stats"]["mean"].tolist()  # half of 0, half of 1
    [0.5, 0.5, 0.5]
    """

    use_scale: bool = True
    momentum: float = 0.9
    implementation: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        batch_norm = choose(IMPLEMENTATIONS, self.implementation, "implementation")
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
