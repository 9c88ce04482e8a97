"""The one convolution that every VGG layer calls, fast on each platform.

Stride 1, zero padding that keeps the size ("SAME"), odd square kernels, NHWC / HWIO.
GPU and TPU get `lax.conv_general_dilated` and nothing else. XLA:CPU needs help, which
depends on the shape and the type (`benchmarks/layers.py` measures it,
`docs/results.md` has the table):

* A 1x1 kernel, or a 1x1 map, is one matrix product.
* A few pixels beside a large kernel, as the last stages of one image are: a matrix
  product that reads the kernel once, where it lies.
* A 3x3 kernel, where there are kernels of our own (`fused.py`): those.

Where there are none:

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from vgg_jax import machine
from vgg_jax.errors import choose
from vgg_jax.nn import direct, fused, winograd
from vgg_jax.nn.by_platform import by_platform
from vgg_jax.nn.reverse_mode import not_trained, reverse_mode_only
from vgg_jax.nn.spread import local_shape

IMPLEMENTATIONS = ("auto", "lax")

_MIN_WINOGRAD_CHANNELS = 32  # with fewer, the transforms cost more than they save
_MAX_WINOGRAD_WASTE = 2.0  # padded area / area up to which Winograd still wins
_DIRECT_PRODUCTS = 64 * 64  # channels, in times out, up to which Winograd is slower
_FEW_PIXELS = 1024  # times the pixels are at most as many as the channels, in times out
# The same where kernels are prepared for `fused.py`, which then reads only them.
_FEWER_PIXELS = {"float32": 8192, "bfloat16": 4096}
# Where bfloat16 is computed by Winograd F(2x2), for many pixels and channels.
F2_KINDS = ("AVX512_BF16",)
_MIN_F2_SIZE, _MIN_F2_PIXELS = 4, 2048  # of a map, of all maps of a batch
_MIN_F2_PRODUCTS = 128 * 256  # channels, in times out


def conv2d(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array,
    *,
    implementation: str = "auto",
    prepared: Sequence[jax.Array] = (),
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
        prepared: what `prepared` returns of this kernel; it saves time where `x` has
            the shape that it was made for, and is passed over elsewhere. `w` cannot be
            differentiated then.

    Returns:
        `[B, H, W, K]` in the dtype of `x`; equal to `lax.conv_general_dilated` up to
        rounding (`tests/nn/test_conv.py`).

    Raises:
        ConfigError: `implementation` is unknown; forward-mode differentiation of
            "auto" was to run on CPU; or a prepared kernel was to be differentiated.

    >>> x, w, b = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), jnp.zeros(1)
    >>> conv2d(x, w, b)[0, :, :, 0].round().tolist()[0]  # a corner sees 2 x 2 pixels
    [4.0, 6.0, 6.0, 4.0]
    """
    choose(IMPLEMENTATIONS, implementation, "implementation")
    if implementation == "lax":
        return _biased(x, w, b)
    return by_platform(x, w, b, *prepared, cpu=_biased_on_cpu, default=_biased)


def prepared(shape: Sequence[int], w: jax.Array) -> tuple[jax.Array, ...]:
    """Returns what a CPU computes from a kernel before it convolves with it.

    Where the same kernel serves many calls, it need not be computed in each.

    Args:
        shape: of the input of the convolution, `[B, H, W, C]`.
        w: as for `conv2d`.

    Returns:
        Arrays in the dtype of `w`, up to four times its size; none where the fastest
        algorithm takes the kernel as it is.

    >>> w = jnp.ones((3, 3, 64, 128))
    >>> [len(prepared((64, size, size, 64), w)) > 0 for size in (1, 8)]
    [False, True]
    """
    x: Any = jax.ShapeDtypeStruct(tuple(shape), w.dtype)
    algorithm = _cpu_algorithm(x, w, prepared=True)
    return tuple(algorithm.kernels(x, w)) if isinstance(algorithm, _ByKernels) else ()


def _biased(x: jax.Array, w: jax.Array, b: jax.Array, *_: jax.Array) -> jax.Array:
    return _plus(direct.plain(x, w), b)


@jax.custom_jvp
def _plus(y: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `y + b`, such that the gradient of `b` is summed in float32.

    JAX itself sums that of a bfloat16 `b` in bfloat16, which on an H100 was up to 1.5%
    off (results/h100/tests.txt).
    """
    return y + b[None, None, None]


@_plus.defjvp
def _tangent(primals, tangents):
    dy, db = (tangent.astype(jnp.float32) for tangent in tangents)
    return _plus(*primals), (dy + db[None, None, None]).astype(primals[0].dtype)


def _biased_on_cpu(
    x: jax.Array, w: jax.Array, b: jax.Array, *prepared: jax.Array
) -> jax.Array:
    x, w, b, *kernels = reverse_mode_only(x, w, b, *prepared)
    if kernels:
        w, kernels = not_trained(w, kernels)
    algorithm = _cpu_algorithm(x, w, prepared=bool(kernels))
    made = isinstance(algorithm, _ByKernels) and algorithm.made(kernels, x, w)
    if algorithm is _FUSED:
        return fused.conv3x3(x, w, b, *kernels if made else ())
    if isinstance(algorithm, _ByKernels) and made:
        return _add_bias(algorithm.convolve(x, kernels), b)
    return _add_bias(algorithm(x, w), b)


class _ByKernels(NamedTuple):
    """A convolution that first computes several kernels from the one that it is given.

    Attributes:
        whole: the convolution; of `_FUSED` it takes the bias too.
        kernel_count: number of kernels.
        kernels: `(x, w)` -> that many arrays, outside of a program; of `x` it reads
            the shape and the type.
        convolve: `(x, kernels)` -> `y`; not of `_FUSED`.
    """

    whole: Callable[..., jax.Array]
    kernel_count: int
    kernels: Callable[[jax.Array, jax.Array], list[jax.Array]]
    convolve: Callable[..., jax.Array]

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return self.whole(x, w)

    def made(self, prepared: Sequence[jax.Array], x: jax.Array, w: jax.Array) -> bool:
        """Returns whether these are its kernels, for inputs like `x`."""
        if len(prepared) != self.kernel_count:
            return False
        kinds = lambda arrays: [(a.shape, a.dtype) for a in arrays]
        return kinds(prepared) == kinds(jax.eval_shape(self.kernels, x, w))


def _cpu_algorithm(
    x: jax.Array, w: jax.Array, prepared: bool = False
) -> direct.Convolution:
    """Returns the fastest convolution on CPU for these shapes and this type.

    Args:
        x, w: as for `conv2d`.
        prepared: whether kernels need not be computed first.
    """
    (_, height, width, channels), kernel = x.shape, w.shape[0]
    products = channels * w.shape[-1]
    if kernel == 1 or (height, width) == (1, 1):
        return _pointwise
    is_fused = kernel == 3 and fused.suits(x)
    few = _FEWER_PIXELS[x.dtype.name] if is_fused and prepared else _FEW_PIXELS
    if _has_few_pixels(x, few, products):
        return _OF_FEW_PIXELS
    if is_fused:
        return _FUSED
    if kernel == 3 and (height, width) == (2, 2) and x.dtype == jnp.float32:
        return _BY_KARATSUBA
    if max(height, width) < kernel:
        return _dense
    waste = (height + -height % 4) * (width + -width % 4) / (height * width)
    if kernel == 3 and x.dtype == jnp.float32 and waste <= _MAX_WINOGRAD_WASTE:
        if channels >= _MIN_WINOGRAD_CHANNELS:
            return _BY_F4 if products > _DIRECT_PRODUCTS else _MIXED
    if kernel == 3 and x.dtype == jnp.bfloat16 and _is_faster_by_f2(x, w):
        return _BY_F2
    return _DIRECT


def _has_few_pixels(x: jax.Array, few: int, products: int) -> bool:
    """Returns whether reading the kernel costs the most, or more copies of it would."""
    if is_symbolic_dim(x.shape[0]):
        return False
    *shape, _ = local_shape(x)
    return few * math.prod(shape) <= products


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
    y = x.reshape(-1, x.shape[-1]) @ w[centre, centre]
    return y.reshape(*x.shape[:3], w.shape[-1])


def _by_tiles(
    transform: winograd.Transform, convolution: Callable[..., jax.Array], x, kernel
) -> jax.Array:
    y = convolution(_to_tiles(x, transform), kernel, transform)
    return y[:, : x.shape[1], : x.shape[2]]


def _winograd(t: winograd.Transform) -> _ByKernels:
    return _ByKernels(
        whole=partial(_by_tiles, t, winograd.conv3x3),
        kernel_count=(t.tile + 2) ** 2,
        kernels=lambda _, w: winograd.transformed_now(w, t),
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


def _karatsuba_kernels(_: jax.Array, w: jax.Array) -> list[jax.Array]:
    return _all_thirds(w)


@jax.jit
def _all_thirds(w):
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
_FUSED = _ByKernels(fused.conv3x3, 1, fused.kernels, fused.conv3x3)
_BY_KARATSUBA = _ByKernels(_karatsuba2x2, 9, _karatsuba_kernels, _karatsuba_by)


@jax.custom_vjp
def _add_bias(y: jax.Array, b: jax.Array) -> jax.Array:
    return y + b[None, None, None]


def _add_bias_forward(y, b):
    return y + b[None, None, None], None


def _add_bias_backward(_, g):
    if fused.suits(g):
        return g, fused.sum_over_pixels(g)
    # Inside a training step, XLA:CPU sums over all axes but the last by loops that do
    # not vectorise: a fifth of the step. As a matrix product the sum costs nothing.
    flat = g.reshape(-1, g.shape[-1])
    return g, jnp.ones(len(flat), g.dtype) @ flat


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
