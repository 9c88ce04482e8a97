"""Direct convolution on CPU, each of its three passes spelled as XLA:CPU runs it fast.

XLA hands forward convolutions to oneDNN (`backend.py` sets the flag) or to Eigen, but
not the transposed ones that autodiff makes. So the gradient by the input is spelled as
a forward convolution with the flipped kernel, or, where there are few pixels, as one
matrix product; and the gradient by the kernel as one long matrix product.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from vgg_jax.nn import matmul, pieces
from vgg_jax.nn.spread import local_shape

Convolution = Callable[[jax.Array, jax.Array], jax.Array]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 8  # up to this many, the gradient by the kernel moves images both ways
_NARROW = 8  # maps of a smaller width are joined ...
_JOINED = 16  # ... up to this many side by side


def plain(x: jax.Array, w: jax.Array) -> jax.Array:
    """XLA's own convolution, stride 1, zero padding that keeps the size."""
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)


def of_passes(
    forward: Convolution,
    by_input: Convolution,
    by_kernel: Callable[[jax.Array, jax.Array, int], jax.Array],
) -> Convolution:
    """Returns a convolution whose gradients are computed as said.

    Args:
        forward: `(x, w)` -> `y`.
        by_input: `(dy, w)` -> `dx`.
        by_kernel: `(x, dy, size of the kernel)` -> `dw`.
    """

    @jax.custom_vjp
    def convolution(x, w):
        return forward(x, w)

    def backward(residuals, g):
        x, w = residuals
        return by_input(g, w), by_kernel(x, g, w.shape[0])

    convolution.defvjp(lambda x, w: (forward(x, w), (x, w)), backward)
    return convolution


def side_by_side(x: jax.Array, w: jax.Array) -> jax.Array:
    """Returns `plain(x, w)`, with narrow maps joined into wide ones, zeros between.

    oneDNN's AMX kernels work on 16 neighbouring pixels of a row at a time.
    """
    (batch, height, width, channels), (kernel, *_, features) = x.shape, w.shape
    joined = _images_to_join(x)
    if width >= _NARROW or joined == 1:
        return plain(x, w)
    padded = width + kernel // 2
    x = jnp.pad(x, ((0, 0), (0, 0), (0, kernel // 2), (0, 0)))
    x = x.reshape(-1, joined, height, padded, channels).swapaxes(1, 2)
    y = plain(x.reshape(-1, height, joined * padded, channels), w)
    y = y.reshape(-1, height, joined, padded, features).swapaxes(1, 2)
    return y.reshape(batch, height, padded, features)[:, :, :width]


def _images_to_join(x: jax.Array) -> int:
    """Returns how many images to put side by side, all of them on one device."""
    if is_symbolic_dim(x.shape[0]):
        return 1
    batch, *_ = local_shape(x)
    return math.gcd(batch, _JOINED)


def by_flipped_kernel(g: jax.Array, w: jax.Array) -> jax.Array:
    """Returns the gradient by the input as a forward convolution."""
    return side_by_side(g, jnp.swapaxes(w[::-1, ::-1], 2, 3))


def by_gathering(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolves as one matrix product, `[pixels, k k C] [k k C, K]`.

    It reads the kernel once, and gathers the k x k neighbours of each pixel, which
    costs little where there are few pixels.
    """
    size, features = w.shape[0], w.shape[-1]
    moves = range(size // 2, -(size // 2) - 1, -1)
    rows = [_shifted(x, down, 1) for down in moves]
    seen = jnp.concatenate([_shifted(row, by, 2) for row in rows for by in moves], -1)
    seen = seen.reshape(-1, seen.shape[-1])
    y = matmul.product(seen, w.reshape(-1, features))
    return y.reshape(*x.shape[:3], features)


def by_spreading(g: jax.Array, w: jax.Array) -> jax.Array:
    """Returns the gradient by the input as one matrix product and a sum of its parts.

    The product `[pixels, K] [K, k k C]` says what each pixel of `g` adds to its k x k
    neighbours. It reads the kernel where it lies: flipping one of 512 x 512 channels
    takes longer than all else where there are few pixels.
    """
    (*shape, features), (size, _, channels, _) = g.shape, w.shape
    parts = matmul.by_transposed(g.reshape(-1, features), w.reshape(-1, features))
    # One axis at a time: meshes of explicit axes refuse to split two at once.
    parts = parts.reshape(-1, size, size, channels)
    parts = parts.reshape(*shape, size, size, channels)
    moves = range(-(size // 2), size // 2 + 1)
    rows = []
    for i, down in enumerate(moves):
        moved = [_shifted(parts[..., i, j, :], by, 2) for j, by in enumerate(moves)]
        rows.append(_shifted(sum(moved[1:], moved[0]), down, 1))
    return sum(rows[1:], rows[0])


def by_product(x: jax.Array, g: jax.Array, kernel: int) -> jax.Array:
    """Returns `dw[i, j] = sum x[h + i - r, w + j - r] g[h, w]` as one matrix product.

    The k sideways shifts of the image are concatenated along the channels, and so are
    the k vertical shifts of the cotangent. An image of few channels, as the first
    layer's, is shifted both ways instead.
    """
    (*_, channels), features, r = x.shape, g.shape[-1], kernel // 2
    few = channels <= _FEW_CHANNELS
    moves = range(-r, r + 1)

    def product(x, g):
        images = [_shifted(x, -j, 2) for j in moves]
        if few:
            images = [_shifted(image, -i, 1) for i in moves for image in images]
        else:
            g = jnp.concatenate([_shifted(g, i, 1) for i in moves], -1)
        x = jnp.concatenate(images, -1)
        x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
        return matmul.of_transposed(x, g), None

    n = pieces.count(x, copies=kernel**2 if few else 2)
    dw, _ = pieces.summed(product, n, x, g)
    if few:
        return dw.reshape(kernel, kernel, channels, features)
    return dw.reshape(kernel, channels, kernel, features).transpose(2, 0, 1, 3)


def _shifted(x: jax.Array, by: int, axis: int) -> jax.Array:
    """Returns `x` moved by so many pixels along an axis, zeros moving in."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)
