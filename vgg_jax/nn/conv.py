"""The one convolution that every VGG layer calls, fast on each platform.

Stride 1, zero padding that keeps the size ("SAME"), odd square kernels, NHWC / HWIO.
GPU and TPU get `lax.conv_general_dilated` and nothing else. XLA:CPU needs help, which
depends on the shape and the type (`benchmarks/layers.py` measures it,
`docs/results.md` has the table):

* A 1x1 kernel, or a 1x1 map, is one matrix product.
* Maps smaller than the kernel (VGG's 2x2 at 32 px) fall to scalar loops in XLA:CPU,
  over 100x slower than the other layers. They are written as matrix products here.
* float32 with a 3x3 kernel: Winograd (`winograd.py`).
* The rest, bfloat16 above all: XLA hands forward convolutions to oneDNN (`backend.py`
  sets the flag), but not the transposed ones that autodiff makes. So the input gradient
  is spelled as a forward convolution with the flipped kernel, and the weight gradient
  as one long matrix product. Narrow maps are joined into wide ones.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from vgg_jax.errors import choose
from vgg_jax.nn import winograd
from vgg_jax.nn.reverse_mode import reverse_mode_only

IMPLEMENTATIONS = ("auto", "lax")

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_MIN_WINOGRAD_CHANNELS = 32  # with fewer, the transforms cost more than they save
_MAX_WINOGRAD_WASTE = 2.0  # padded area / area up to which Winograd still wins
_FEW_CHANNELS = 8  # up to this many, the weight gradient moves the image both ways
_NARROW = 8  # maps of a smaller width are joined ...
_JOINED = 16  # ... up to this many side by side


def conv2d(
    x: jax.Array, w: jax.Array, b: jax.Array, *, implementation: str = "auto"
) -> jax.Array:
    """Convolves with stride 1 and zero padding that keeps the spatial size; adds `b`.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        w: `[k, k, C, K]` with odd k, dtype of `x`.
        b: `[K]`, dtype of `x`.
        implementation: "auto" picks by the shape, the type and the platform that the
            program is lowered for: a program exported for a GPU from a CPU host holds
            plain convolutions only. "lax" is `lax.conv_general_dilated` everywhere, as
            on GPU and TPU; on CPU, forward-mode derivatives (`jax.jvp`, `jax.jacfwd`)
            need this one.

    Returns:
        `[B, H, W, K]` in the dtype of `x`; equal to `lax.conv_general_dilated` up to
        rounding (`tests/nn/test_conv.py`).

    Raises:
        ConfigError: `implementation` is unknown, or forward-mode differentiation of
            "auto" was to run on CPU.

    >>> x, w, b = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), jnp.zeros(1)
    >>> conv2d(x, w, b)[0, :, :, 0].round().tolist()[0]  # a corner sees 2 x 2 pixels
    [4.0, 6.0, 6.0, 4.0]
    """
    choose(IMPLEMENTATIONS, implementation, "implementation")
    if implementation == "lax":
        return _biased(x, w, b)
    return lax.platform_dependent(x, w, b, cpu=_biased_on_cpu, default=_biased)


def _biased(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return _plain(x, w) + b[None, None, None]


def _biased_on_cpu(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    x, w, b = reverse_mode_only(x, w, b)
    return _add_bias(_cpu_algorithm(x, w)(x, w), b)


def _plain(x: jax.Array, w: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)


def _cpu_algorithm(
    x: jax.Array, w: jax.Array
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns the fastest convolution on CPU for these shapes and this type."""
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


def _pointwise(x: jax.Array, w: jax.Array) -> jax.Array:
    centre = w.shape[0] // 2
    # Flat: without oneDNN, XLA:CPU rounds the batched form's bfloat16 kernel gradient
    # 10x worse.
    y = x.reshape(-1, x.shape[-1]) @ w[centre, centre]
    return y.reshape(*x.shape[:3], w.shape[-1])


def _winograd(x: jax.Array, w: jax.Array) -> jax.Array:
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)))
    return winograd.conv3x3(x, w)[:, :height, :width]


def _dense(x: jax.Array, w: jax.Array) -> jax.Array:
    """Multiplies small maps, flattened, by the matrix of the whole convolution."""
    (batch, height, width, channels), (kernel, *_, features) = x.shape, w.shape
    r = kernel // 2
    w = jnp.pad(w, ((height, height), (width, width), (0, 0), (0, 0)))

    def block(p, q):  # the kernel as output pixel (p, q) sees it: [H, W, C, K]
        top, left = height + r - p, width + r - q
        return w[top : top + height, left : left + width]

    matrix = jnp.stack(
        [block(p, q) for p in range(height) for q in range(width)], axis=3
    )
    size = height * width * channels
    y = x.reshape(batch, size) @ matrix.reshape(size, -1)
    return y.reshape(batch, height, width, features)


def _toeplitz2(x0, x1, w0, w1, w2, product):
    """Returns (w1 x0 + w2 x1, w0 x0 + w1 x1), by three products instead of four."""
    both = product(x0 + x1, w1)
    return both + product(x1, w2 - w1), both + product(x0, w0 - w1)


def _karatsuba2x2(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolves 2x2 maps with a 3x3 kernel by 9 matrix products.

    Of the 36 pairs of an output pixel and a tap, 16 fall inside the map; Karatsuba's
    trick, along both axes, computes those by 9 products.
    """

    def columns(x, w):  # x: [B, 2, C], w: [3, C, K]
        y = _toeplitz2(x[:, 0], x[:, 1], w[0], w[1], w[2], jnp.matmul)
        return jnp.stack(y, axis=1)

    y = _toeplitz2(x[:, 0], x[:, 1], w[0], w[1], w[2], columns)
    return jnp.stack(y, axis=1)


@jax.custom_vjp
def _flipped(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolves; the input gradient is spelled as a forward convolution."""
    return _side_by_side(x, w)


def _flipped_forward(x, w):
    return _side_by_side(x, w), (x, w)


def _flipped_backward(residuals, g):
    x, w = residuals
    dx = _side_by_side(g, jnp.swapaxes(w[::-1, ::-1], 2, 3))
    return dx, _kernel_gradient(x, g, w.shape[0])


def _side_by_side(x: jax.Array, w: jax.Array) -> jax.Array:
    """Returns `_plain(x, w)`, with narrow maps joined into wide ones, zeros between.

    oneDNN's AMX kernels work on 16 neighbouring pixels of a row at a time.
    """
    (batch, height, width, channels), (kernel, *_, features) = x.shape, w.shape
    joined = _images_to_join(x)
    if width >= _NARROW or joined == 1:
        return _plain(x, w)
    padded = width + kernel // 2
    x = jnp.pad(x, ((0, 0), (0, 0), (0, kernel // 2), (0, 0)))
    x = x.reshape(-1, joined, height, padded, channels).swapaxes(1, 2)
    y = _plain(x.reshape(-1, height, joined * padded, channels), w)
    y = y.reshape(-1, height, joined, padded, features).swapaxes(1, 2)
    return y.reshape(batch, height, padded, features)[:, :, :width]


def _images_to_join(x: jax.Array) -> int:
    """Returns how many images to put side by side, all of them on one device."""
    if is_symbolic_dim(x.shape[0]):
        return 1
    batch, *_ = jax.typeof(x).sharding.shard_shape(x.shape)
    return math.gcd(batch, _JOINED)


def _shifted(x: jax.Array, by: int, axis: int) -> jax.Array:
    """Returns `x` moved by so many pixels along an axis, zeros moving in."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _kernel_gradient(x: jax.Array, g: jax.Array, kernel: int) -> jax.Array:
    """Returns `dw[i, j] = sum x[h + i - r, w + j - r] g[h, w]` as one matrix product.

    The k sideways shifts of the image are concatenated along the channels, and so are
    the k vertical shifts of the cotangent. An image of few channels, as the first
    layer's, is shifted both ways instead.
    """
    (*_, channels), features, r = x.shape, g.shape[-1], kernel // 2
    moves = range(-r, r + 1)
    images = [_shifted(x, -j, 2) for j in moves]
    if few := channels <= _FEW_CHANNELS:
        images = [_shifted(image, -i, 1) for i in moves for image in images]
    else:
        g = jnp.concatenate([_shifted(g, i, 1) for i in moves], -1)
    x = jnp.concatenate(images, -1)
    x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    dw = winograd.product_over_pixels(x, g)
    if few:
        return dw.reshape(kernel, kernel, channels, features)
    return dw.reshape(kernel, channels, kernel, features).transpose(2, 0, 1, 3)


_flipped.defvjp(_flipped_forward, _flipped_backward)


@jax.custom_vjp
def _add_bias(y: jax.Array, b: jax.Array) -> jax.Array:
    return y + b[None, None, None]


def _add_bias_forward(y, b):
    return y + b[None, None, None], None


def _add_bias_backward(_, g):
    # Inside a training step, XLA:CPU sums over all axes but the last by loops that do
    # not vectorise: a fifth of the step. As a matrix product the sum costs nothing.
    flat = g.reshape(-1, g.shape[-1])
    return g, jnp.ones(len(flat), g.dtype) @ flat


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
