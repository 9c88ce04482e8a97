"""The one convolution every VGG layer calls, fast on each backend.

Stride 1, zero padding that keeps the size ("SAME"), odd square kernels, NHWC / HWIO.
GPU and TPU get `lax.conv_general_dilated` and nothing else. XLA:CPU needs help, by
shape and type (`benchmarks/layers.py` measures it, RESULTS.md has the table):

* 1x1 kernels and 1x1 maps are one matrix product.
* Maps smaller than the kernel (VGG's 2x2 at 32 px) fall to scalar loops in XLA:CPU,
  over 100x slower than the other layers: written as matrix products here.
* float32, 3x3: Winograd (`winograd.py`).
* The rest, bfloat16 above all: XLA hands forward convolutions to oneDNN (`backend.py`
  sets the flag), but not the transposed ones that autodiff makes. So the input gradient
  is spelled as a forward convolution with the flipped kernel, and the weight gradient
  as one long matrix product. Narrow maps are joined to wide ones.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from vgg_jax.errors import choose
from vgg_jax.nn import winograd

IMPLEMENTATIONS = ("auto", "lax")

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_MIN_WINOGRAD_CHANNELS = 32  # below, the transforms cost more than they save
_FEW_CHANNELS = 8  # up to which the weight gradient gathers all of the image's pixels
_NARROW, _JOINED = 8, 16  # width below which, and how many, maps are joined
_TRANSPOSED = (((0,), (0,)), ((), ()))  # a.T @ b
_MAX_WINOGRAD_WASTE = 2.0  # padded area / area up to which Winograd still wins


def conv2d(
    x: jax.Array, w: jax.Array, b: jax.Array, *, implementation: str = "auto"
) -> jax.Array:
    """Convolves with stride 1 and zero padding that keeps the spatial size; adds `b`.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        w: `[k, k, C, K]` with odd k, dtype of `x`.
        b: `[K]`, dtype of `x`.
        implementation: "auto" picks by `jax.default_backend()`, shape and type when
            traced; "lax" is plain `lax.conv_general_dilated`, as on GPU and TPU
            (on CPU, forward-mode and second derivatives need this one).

    Returns:
        `[B, H, W, K]` in the dtype of `x`; equal to `lax.conv_general_dilated` to
        rounding (`tests/test_conv.py`).

    Raises:
        ConfigError: `implementation` is unknown.
    """
    choose(IMPLEMENTATIONS, implementation, "model.conv")
    if implementation == "lax" or jax.default_backend() != "cpu":
        return _plain(x, w) + b
    return _add_bias(_on_cpu(x, w)(x, w), b)


def _plain(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)


def _on_cpu(x, w):
    """The CPU algorithm for these shapes and this type."""
    (_, height, width, channels), kernel = x.shape, w.shape[0]
    if kernel == 1 or (height, width) == (1, 1):
        return _pointwise
    if kernel == 3 and (height, width) == (2, 2) and x.dtype == jnp.float32:
        return _karatsuba2x2
    if max(height, width) < kernel:
        return _dense
    waste = (height + -height % 4) * (width + -width % 4) / (height * width)
    if kernel == 3 and x.dtype == jnp.float32 and waste <= _MAX_WINOGRAD_WASTE:
        if channels >= _MIN_WINOGRAD_CHANNELS:
            return _winograd
    return _flipped


def _pointwise(x, w):
    centre = w.shape[0] // 2
    # Flat: without oneDNN, XLA:CPU rounds the batched form's bfloat16 kernel gradient
    # 10x worse.
    y = x.reshape(-1, x.shape[-1]) @ w[centre, centre]
    return y.reshape(*x.shape[:3], -1)


def _winograd(x, w):
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)))
    return winograd.conv3x3(x, w)[:, :height, :width]


def _dense(x, w):
    """A small map flattened, times the matrix of the whole convolution."""
    (batch, height, width, channels), (kernel, *_, features) = x.shape, w.shape
    r = kernel // 2
    w = jnp.pad(w, ((height, height), (width, width), (0, 0), (0, 0)))

    def block(p, q):  # kernel as seen by output pixel (p, q): [H, W, C, K]
        top, left = height + r - p, width + r - q
        return w[top : top + height, left : left + width]

    matrix = jnp.stack(
        [block(p, q) for p in range(height) for q in range(width)], axis=3
    )
    y = x.reshape(batch, -1) @ matrix.reshape(height * width * channels, -1)
    return y.reshape(batch, height, width, features)


def _toeplitz2(x0, x1, w0, w1, w2, product):
    """(w1 x0 + w2 x1, w0 x0 + w1 x1) in three products instead of four."""
    both = product(x0 + x1, w1)
    return both + product(x1, w2 - w1), both + product(x0, w0 - w1)


def _karatsuba2x2(x, w):
    """3x3 convolution of 2x2 maps: 9 matrix products for the 16 that count."""

    def columns(x, w):  # x: [B, 2, C], w: [3, C, K]
        y = _toeplitz2(x[:, 0], x[:, 1], w[0], w[1], w[2], jnp.matmul)
        return jnp.stack(y, axis=1)

    y = _toeplitz2(x[:, 0], x[:, 1], w[0], w[1], w[2], columns)
    return jnp.stack(y, axis=1)


@jax.custom_vjp
def _flipped(x, w):
    """A convolution whose input gradient is spelled as a forward convolution."""
    return _side_by_side(x, w)


def _flipped_forward(x, w):
    return _side_by_side(x, w), (x, w)


def _flipped_backward(residuals, g):
    x, w = residuals
    dx = _side_by_side(g, jnp.swapaxes(w[::-1, ::-1], 2, 3))
    return dx, _kernel_gradient(x, g, w.shape[0])


def _side_by_side(x, w):
    """`_plain` of narrow maps joined to wide ones, zeros between them.

    oneDNN's AMX kernels work on 16 neighbouring pixels of a row at a time.
    """
    (batch, height, width, channels), (kernel, *_, features) = x.shape, w.shape
    joined = math.gcd(batch, _JOINED)
    if width >= _NARROW or joined == 1:
        return _plain(x, w)
    padded = width + kernel // 2
    x = jnp.pad(x, ((0, 0), (0, 0), (0, kernel // 2), (0, 0)))
    x = x.reshape(-1, joined, height, padded, channels).swapaxes(1, 2)
    y = _plain(x.reshape(-1, height, joined * padded, channels), w)
    y = y.reshape(-1, height, joined, padded, features).swapaxes(1, 2)
    return y.reshape(batch, height, padded, features)[:, :, :width]


def _shifted(x, by, axis):
    """`x` moved by so many pixels along an axis, zeros moving in."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _kernel_gradient(x, g, kernel):
    """`dw[i, j] = sum x[h + i - r, w + j - r] g[h, w]` as one long matrix product.

    The image moves sideways and the cotangent up and down, each beside itself; an
    image of few channels, as the first layer's, moves both ways.
    """
    (*_, channels), features, r = x.shape, g.shape[-1], kernel // 2
    moves = range(-r, r + 1)
    x = [_shifted(x, -j, 2) for j in moves]
    if few := channels <= _FEW_CHANNELS:
        x = [_shifted(part, -i, 1) for i in moves for part in x]
    else:
        g = jnp.concatenate([_shifted(g, i, 1) for i in moves], -1)
    x = jnp.concatenate(x, -1)
    x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    dw = lax.dot_general(x, g, _TRANSPOSED)
    if few:
        return dw.reshape(kernel, kernel, channels, features)
    return dw.reshape(kernel, channels, kernel, features).transpose(2, 0, 1, 3)


_flipped.defvjp(_flipped_forward, _flipped_backward)


@jax.custom_vjp
def _add_bias(y, b):
    return y + b


def _add_bias_forward(y, b):
    return y + b, None


def _add_bias_backward(_, g):
    # In the step XLA:CPU sums over all axes but the last by loops that do not
    # vectorise: a fifth of the step. As a matrix product it costs nothing.
    flat = g.reshape(-1, g.shape[-1])
    return g, jnp.ones(len(flat), g.dtype) @ flat


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
