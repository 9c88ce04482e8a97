"""3x3 convolution on CPU by kernels of our own, where llvmlite is there.

Each pass (`tile_convolution.py`, `tile_gradient.py`) is an operation of JAX
(`operations.py`) that is linear in both arguments, so that its derivatives, of any
order and mode, are made of the three. With a kernel that is prepared,
few pixels are convolved without tiles (`direct_kernel.py`).
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.interpreters import ad
from jax.typing import DTypeLike

from vgg_jax import machine
from vgg_jax.nn import by_xla, pixel_sums
from vgg_jax.nn.emitted import GROUPS, call, number, registers
from vgg_jax.nn.operations import operation

if TYPE_CHECKING:
    from vgg_jax.nn.algorithms import Algorithm, Registers

# Tiles up to which a prepared kernel is faster without them, and inputs times outputs
# up to which tiles stay in the cache (`benchmarks/few_pixels.py`).
_FEW_TILES = {
    ("f4", "float32"): 2,
    ("f4", "bfloat16"): 16,
    ("pairs", "float32"): 2,
    ("pairs", "bfloat16"): 4,
}
_LARGE_KERNEL = 128 * 256
_FEW_CHANNELS = 4  # of images


def conv3x3(x: jax.Array, w: jax.Array, b: jax.Array, *kernels: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zero padding 1, and adds `b`; sums in float32.

    Args:
        x: `[B, H, W, C]`, which the kernels suit (`operations.suits`).
        w: `[3, 3, C, K]`, dtype of `x`.
        b: `[K]`, dtype of `x`.
        *kernels: what `kernel` returned, or nothing; the value is computed by it then.

    Returns:
        `[B, H, W, K]` in the dtype of `x`; by the kernels rounded once.
    """
    return _biased(x, w, b, *kernels)


def kernel(x: jax.Array, w: jax.Array) -> jax.Array:
    """Returns what `conv3x3` computes of the kernel first, for inputs like `x`.

    Without tiles (`is_direct`) that is the kernel in another order, padded. Else it is
    float32, and of four times as many elements as the kernel, more where there are few
    channels. Of `x` only shape and type are read.
    """
    return _kernel_now(w, tuple(x.shape))


def made(prepared: Sequence[jax.Array], x: jax.Array, w: jax.Array) -> bool:
    """Returns whether that is what `kernel` returned, for inputs like `x`."""
    if len(prepared) != 1:
        return False
    expected = jax.eval_shape(_kernel_now, w, tuple(x.shape))
    return (prepared[0].shape, prepared[0].dtype) == (expected.shape, expected.dtype)


def has_direct(dtype: DTypeLike) -> bool:
    """Returns whether few pixels of a type have a kernel that this CPU can compute."""
    return dtype != jnp.bfloat16 or machine.multiplies_pairs()


def is_direct(shape: Sequence[int], w: jax.Array) -> bool:
    """Returns whether maps are faster without tiles, where a kernel is prepared.

    So they are where it costs the most to read the kernel, and where `has_direct`.

    Args:
        shape: of the maps, `[B, H, W, C]`.
        w: the kernel, `[3, 3, C, K]`.
    """
    if not has_direct(w.dtype):
        return False
    algorithm, tiles = _of_tiles(shape)
    is_large = w.shape[2] * w.shape[3] >= _LARGE_KERNEL
    kind = "bfloat16" if w.dtype == jnp.bfloat16 and is_large else "float32"
    return tiles <= _FEW_TILES[algorithm.name, kind]


def _layout(features: int) -> "Registers":
    """Returns the layout of products by so many features, which may fill one vector."""
    layout = registers()
    return layout._replace(vectors=1) if features <= layout.lanes else layout


def panels(w: jax.Array) -> jax.Array:
    """Returns a kernel in the order in which `direct_kernel.convolve` reads it.

    Returns:
        `[panels, 9, C, panel, 1]` in float32; in bfloat16 `[panels, 9, pairs, panel,
        2]`, of pairs of channels, as the CPU multiplies them.
    """
    *_, channels, features = w.shape
    panel, together = _layout(features).panel, 4 // w.dtype.itemsize
    rest = (0, -channels % together), (0, -features % panel)
    units, count = -(-channels // together), -(-features // panel)
    w = jnp.pad(w, ((0, 0), (0, 0), *rest))
    return w.reshape(9, units, together, count, panel).transpose(3, 0, 1, 4, 2)


def _of_tiles(shape: Sequence[int]) -> tuple["Algorithm", int]:
    """Returns the algorithm for maps `[B, H, W, C]`, and how many tiles."""
    from vgg_jax.nn import algorithms

    batch, height, width, _ = shape
    algorithm = algorithms.PAIRS if max(height, width) <= 2 else algorithms.F4
    return algorithm, batch * -(-height // algorithm.tile) * -(-width // algorithm.tile)


def transformed(shape: Sequence[int], w: jax.Array, *, flipped: bool) -> jax.Array:
    """Returns a kernel as `tile_convolution.convolve` reads it, for maps of a shape.

    `flipped`, it is that of the gradient by the input.
    """
    inputs, outputs = w.shape[:1:-1] if flipped else w.shape[2:]
    (algorithm, _), layout = _of_tiles(shape), _layout(outputs)
    count, vectors = -(-outputs // layout.panel), -(-inputs // layout.lanes)
    of = count, algorithm.products, vectors * layout.lanes, layout.panel
    w = w.astype(jnp.float32)
    return call("kernels", algorithm, flipped, of, jnp.float32, w, layout=layout)


def kernels(x: jax.Array, w: jax.Array, *, gradients: bool) -> Iterator[tuple]:
    """Yields what `conv3x3`, or its gradients, ask of `emitted`, for such maps.

    Args:
        x: `[B, H, W, C]`; if C are those of an image, without the gradient by it.
        w: `[3, 3, C, K]`, dtype of `x`. Of both, only shape and type are read.
        gradients: whether those of the gradients, else those of the value.
    """
    (algorithm, _), size = _of_tiles(x.shape), x.dtype.itemsize
    channels, features = w.shape[2:]
    if not gradients:
        yield "kernels", _layout(features), algorithm, False
        yield "convolve", _layout_of(channels, features), algorithm, size
        return
    yield "by_kernel", registers(), algorithm, size
    if channels > _FEW_CHANNELS:
        yield "kernels", _layout(channels), algorithm, True
        yield "convolve", _layout_of(features, channels), algorithm, size


def _layout_of(channels: int, features: int) -> "Registers":
    layout = _layout(features)
    few = channels <= _FEW_CHANNELS
    return layout._replace(depth=_FEW_CHANNELS) if few else layout


def _convolved(x: jax.Array, u: jax.Array, b: jax.Array) -> jax.Array:
    (algorithm, tiles), layout = _of_tiles(x.shape), _layout_of(x.shape[3], len(b))
    blocks = max(1, -(-tiles // layout.tiles))
    groups = number(max(1, min(u.shape[0], -(-GROUPS // blocks))))
    arguments, size = (x, u, b.astype(jnp.float32), groups), x.dtype.itemsize
    of = *x.shape[:3], len(b)
    return call("convolve", algorithm, size, of, x.dtype, *arguments, layout=layout)


def _directly(x: jax.Array, u: jax.Array, b: jax.Array) -> jax.Array:
    pixels, layout = math.prod(x.shape[:3]), _layout(len(b))
    rows = -(-pixels // max(1, -(-pixels // layout.rows)))  # as full as the others
    layout = layout._replace(rows=max(1, rows))
    blocks = -(-pixels // layout.rows)
    groups = number(max(1, min(blocks, -(-GROUPS // max(1, u.shape[0])))))
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, x.shape[3] % u.shape[4])))  # to pairs
    arguments, size = (x, u, b.astype(jnp.float32), groups), x.dtype.itemsize
    of = *x.shape[:3], len(b)
    return call("convolve_direct", None, size, of, x.dtype, *arguments, layout=layout)


def _without_bias(x: jax.Array, w: jax.Array, *, flipped: bool) -> jax.Array:
    b = jnp.zeros(w.shape[2 if flipped else 3], jnp.float32)
    return _convolved(x, transformed(x.shape, w, flipped=flipped), b)


def _kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    from vgg_jax.nn import algorithms

    algorithm, tiles = _of_tiles(x.shape)
    blocks = -(-tiles // registers().tiles)
    channels, features = x.shape[-1], g.shape[-1]
    channel_groups = max(1, -(-channels // algorithms.GROUP))
    groups = max(1, min(blocks, -(-GROUPS // channel_groups)))
    shape = groups, 9, channels, features
    dw = call("by_kernel", algorithm, x.dtype.itemsize, shape, jnp.float32, x, g)
    return dw.sum(0).reshape(3, 3, channels, features).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=1)
def _kernel_now(w, shape):
    if is_direct(shape, w):
        return panels(w)
    return transformed(shape, w, flipped=False)


def _by_xla(x, w):
    return by_xla.algorithm(x, w)(x, w)


def _input_gradient_by_xla(g, w):
    x = jnp.zeros((*g.shape[:3], w.shape[2]), g.dtype)
    return jax.vjp(lambda x: _by_xla(x, w), x)[1](g)[0]


def _kernel_gradient_by_xla(x, g):
    w = jnp.zeros((3, 3, x.shape[3], g.shape[3]), x.dtype)
    return jax.vjp(lambda w: _by_xla(x, w), w)[1](g)[0]


_convolution = operation(
    "convolution_by_tiles",
    functools.partial(_without_bias, flipped=False),
    _by_xla,
    lambda x, w: (*x[:3], w[3]),
)
_input_gradient = operation(
    "input_gradient_by_tiles",
    functools.partial(_without_bias, flipped=True),
    _input_gradient_by_xla,
    lambda g, w: (*g[:3], w[2]),
)
_of_kernel = operation(
    "kernel_gradient_by_tiles",
    _kernel_gradient,
    _kernel_gradient_by_xla,
    lambda x, g: (3, 3, x[3], g[3]),
    maps=0,
)
ad.defbilinear(
    _convolution,
    lambda ct, x, w: _input_gradient.bind(ct, w),
    lambda ct, x, w: _of_kernel.bind(x, ct),
)
ad.defbilinear(
    _input_gradient,
    lambda ct, g, w: _convolution.bind(ct, w),
    lambda ct, g, w: _of_kernel.bind(ct, g),
)
ad.defbilinear(
    _of_kernel,
    lambda ct, x, g: _input_gradient.bind(g, ct),
    lambda ct, x, g: _convolution.bind(x, ct),
)


def _with_bias(x, w, b, u=None):
    if u is None:
        u = transformed(x.shape, w, flipped=False)
    return _directly(x, u, b) if u.ndim == 5 else _convolved(x, u, b)


_biased_convolution = operation(
    "convolution_with_bias",
    _with_bias,
    lambda x, w, b, *_: _by_xla(x, w) + b[None, None, None],
    lambda x, w, *_: (*x[:3], w[3]),
)


@jax.custom_jvp
def _biased(x, w, b, *prepared):
    return _biased_convolution.bind(x, w, b, *prepared)


@functools.partial(_biased.defjvp, symbolic_zeros=True)
def _biased_jvp(primals, tangents):
    x, w, *_ = primals
    dx, dw, db, *_ = (None if type(t) is SymbolicZero else t for t in tangents)
    y, parts = _biased(*primals), []
    if dx is not None:
        parts.append(_convolution.bind(dx, w))
    if dw is not None:
        parts.append(_convolution.bind(x, dw))
    if db is not None:
        parts.append(pixel_sums.spread(db, y.shape[:3]))
    return y, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(y)
