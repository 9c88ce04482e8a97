"""Convolution on CPU by XLA's own operations: which of them are fastest, for what.

It depends on the shape and the type (`benchmarks/layers.py` measures it,
`docs/results.md` has the table):

* A 1x1 kernel, or a 1x1 map, is one matrix product.
* A few pixels beside a large kernel, as the last stages of one image are: a matrix
  product that reads the kernel once, where it lies.
* Maps smaller than the kernel (VGG's 2x2 at 32 px) fall to scalar loops in XLA:CPU,
  over 100x slower than the other layers. They are written as matrix products here.
* float32 with a 3x3 kernel: Winograd (`winograd.py`), but for the first stage, whose 64
  channels have transforms that take as long as they save.
* The rest, bfloat16 above all: direct convolution, with gradients that XLA:CPU is fast
  at (`direct.py`); or, where the CPU multiplies bfloat16 without AMX, Winograd in small
  tiles.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from vgg_jax import machine
from vgg_jax.nn import direct, matmul, winograd
from vgg_jax.nn.spread import local_shape

_MIN_WINOGRAD_CHANNELS = 32  # with fewer, the transforms cost more than they save
_MAX_WINOGRAD_WASTE = 2.0  # padded area / area up to which Winograd still wins
_DIRECT_PRODUCTS = 64 * 64  # channels, in times out, up to which Winograd is slower
_FEW_PIXELS = 1024  # times the pixels are at most as many as the channels, in times out
# Where bfloat16 is computed by Winograd F(2x2), for many pixels and channels.
F2_KINDS = ("AVX512_BF16",)
_MIN_F2_SIZE, _MIN_F2_PIXELS = 4, 2048  # of a map, of all maps of a batch
_MIN_F2_PRODUCTS = 128 * 256  # channels, in times out


class ByKernels(NamedTuple):
    """A convolution that first computes several kernels from the one that it is given.

    Attributes:
        whole: the convolution.
        kernel_count: number of kernels.
        kernels: `w` -> that many arrays `[C, K]`, outside of a program.
        convolve: `(x, kernels)` -> `y`.
    """

    whole: direct.Convolution
    kernel_count: int
    kernels: Callable[[jax.Array], list[jax.Array]]
    convolve: Callable[[jax.Array, list[jax.Array]], jax.Array]

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return self.whole(x, w)

    def made(self, prepared: Sequence[jax.Array], x: jax.Array) -> bool:
        """Returns whether these are its kernels, for inputs like `x`."""
        return len(prepared) == self.kernel_count and prepared[0].dtype == x.dtype


def algorithm(x: jax.Array, w: jax.Array) -> direct.Convolution:
    """Returns the fastest convolution on CPU for these shapes and this type.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        w: `[k, k, C, K]` with odd k, dtype of `x`.
    """
    (_, height, width, channels), kernel = x.shape, w.shape[0]
    if is_pointwise(x, w):
        return _pointwise
    if has_few_pixels(x, w):
        return _OF_FEW_PIXELS
    if kernel == 3 and (height, width) == (2, 2) and x.dtype == jnp.float32:
        return _BY_KARATSUBA
    if max(height, width) < kernel:
        return _dense
    waste = (height + -height % 4) * (width + -width % 4) / (height * width)
    if kernel == 3 and x.dtype == jnp.float32 and waste <= _MAX_WINOGRAD_WASTE:
        if channels >= _MIN_WINOGRAD_CHANNELS:
            large = channels * w.shape[-1] > _DIRECT_PRODUCTS
            return _BY_F4 if large else _MIXED
    if kernel == 3 and x.dtype == jnp.bfloat16 and _is_faster_by_f2(x, w):
        return _BY_F2
    return _DIRECT


def is_pointwise(x: jax.Array, w: jax.Array) -> bool:
    """Returns whether each pixel sees itself alone."""
    return w.shape[0] == 1 or x.shape[1:3] == (1, 1)


def has_few_pixels(x: jax.Array, w: jax.Array, times: int = 1) -> bool:
    """Returns whether reading the kernel costs the most, or more copies of it would.

    Args:
        x, w: as for `algorithm`.
        times: how many times as few pixels there must be as without this.
    """
    if is_symbolic_dim(x.shape[0]):
        return False
    *shape, _ = local_shape(x)
    channels, features = w.shape[2:]
    return times * _FEW_PIXELS * math.prod(shape) <= channels * features


def _is_faster_by_f2(x: jax.Array, w: jax.Array) -> bool:
    """Returns whether bfloat16 is faster by F(2x2) than by direct convolution.

    It is where products of bfloat16 are not so fast that its transforms take longer, as
    they are by AMX, and where the transforms are small beside the products.
    """
    batch, height, width, channels = x.shape
    if is_symbolic_dim(batch) or machine.cpu_kind() not in F2_KINDS:
        return False
    pixels = math.prod(local_shape(x)[:3])
    return (
        min(height, width) >= _MIN_F2_SIZE
        and pixels >= _MIN_F2_PIXELS
        and channels * w.shape[-1] >= _MIN_F2_PRODUCTS
    )


def _pointwise(x: jax.Array, w: jax.Array) -> jax.Array:
    centre = w.shape[0] // 2
    # Flat: without oneDNN, XLA:CPU rounds the batched form's bfloat16 kernel gradient
    # 10x worse.
    y = matmul.product(x.reshape(-1, x.shape[-1]), w[centre, centre])
    return y.reshape(*x.shape[:3], w.shape[-1])


def _by_tiles(
    transform: winograd.Transform, convolution: Callable[..., jax.Array], x, kernel
) -> jax.Array:
    y = convolution(_to_tiles(x, transform), kernel, transform)
    return y[:, : x.shape[1], : x.shape[2]]


def _winograd(t: winograd.Transform) -> ByKernels:
    return ByKernels(
        whole=partial(_by_tiles, t, winograd.conv3x3),
        kernel_count=(t.tile + 2) ** 2,
        kernels=partial(winograd.transformed_now, t=t),
        convolve=partial(_by_tiles, t, winograd.by_kernels),
    )


def _to_tiles(x: jax.Array, transform: winograd.Transform = winograd.F4) -> jax.Array:
    """Pads with zeros to whole tiles."""
    rows, columns = (-size % transform.tile for size in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)))


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


def _toeplitz2(x, kernels, product):
    """Returns (w1 x0 + w2 x1, w0 x0 + w1 x1), by three products instead of four.

    The pixels x0 and x1 are along the axis 1 of `x` and of the result.
    """
    x0, x1, kernels = x[:, 0], x[:, 1], iter(kernels)
    middle = next(kernels)
    both = product(x0 + x1, middle)
    y = both + product(x1, next(kernels)), both + product(x0, next(kernels))
    return jnp.stack(y, axis=1)


def _thirds(w):
    """Yields the kernels of the three products, of the taps along the first axis."""
    w0, w1, w2 = w[0], w[1], w[2]
    yield w1
    yield w2 - w1
    yield w0 - w1


@jax.jit
def _karatsuba_kernels(w: jax.Array) -> list[jax.Array]:
    return [third for row in _thirds(w) for third in _thirds(row)]


def _karatsuba2x2(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolves 2x2 maps with a 3x3 kernel by 9 matrix products.

    Of the 36 pairs of an output pixel and a tap, 16 fall inside the map; Karatsuba's
    trick, along both axes, computes those by 9 products.
    """
    columns = lambda x, w: _toeplitz2(x, _thirds(w), jnp.matmul)
    return _toeplitz2(x, _thirds(w), columns)


def _karatsuba_by(x: jax.Array, kernels: list[jax.Array]) -> jax.Array:
    columns = partial(_toeplitz2, product=jnp.matmul)
    return _toeplitz2(x, itertools.batched(kernels, 3), columns)


def _by_winograd(x: jax.Array, g: jax.Array, kernel: int) -> jax.Array:
    """Returns the gradient by the kernel, where it alone is Winograd's."""
    return winograd.by_kernel(_to_tiles(x), _to_tiles(g), kernel)


_DIRECT = direct.of_passes(
    direct.side_by_side, direct.by_flipped_kernel, direct.by_product
)
_MIXED = direct.of_passes(direct.plain, direct.by_flipped_kernel, _by_winograd)
_OF_FEW_PIXELS = direct.of_passes(
    direct.by_gathering, direct.by_spreading, direct.by_product
)
_BY_F2, _BY_F4 = map(_winograd, (winograd.F2, winograd.F4))
_BY_KARATSUBA = ByKernels(_karatsuba2x2, 9, _karatsuba_kernels, _karatsuba_by)
