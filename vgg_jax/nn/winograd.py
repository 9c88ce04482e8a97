"""Winograd convolution F(mxm, 3x3) in plain JAX, with a hand-written gradient.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): F(4x4, 3x3)
gives the 4x4 outputs of a 3x3 kernel by 36 multiplications where 144 are needed
directly, F(2x2, 3x3) 2x2 outputs by 16 in place of 36. `docs/results.md` says where
that beats XLA's direct convolution on CPU. The rounding error of F(4x4) in float32 and
of F(2x2) in bfloat16 is a few times that of a direct convolution
(`tests/nn/test_conv.py` holds both to it); that of F(4x4) in bfloat16 is 16 times that.

The products stay separate matrix products (a list, never stacked), and the
transforms are sums of strided slices, channels innermost. You may be tempted to stack
the products or to write the transforms as einsum: the transforms measured 1.2 to 3
times slower (jax 0.10). The transform along one axis is compiled apart from the one
along the other (`_apart`): XLA:CPU would fuse the two and compute the first again for
every element of the second.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vgg_jax.nn import matmul, pieces
from vgg_jax.nn.apart import apart

_Matrix = Sequence[Sequence[float]]


class Transform(NamedTuple):
    """The matrices of F(tile x tile, 3x3), which transform along one axis.

    Attributes:
        tile: outputs per tile; a tile reads `tile + 2` inputs.
        inputs: B^T, `[tile + 2, tile + 2]`.
        kernel: G, `[tile + 2, 3]`.
        outputs: A^T, `[tile, tile + 2]`.
    """

    tile: int
    inputs: _Matrix
    kernel: _Matrix
    outputs: _Matrix


F2 = Transform(
    tile=2,
    inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    kernel=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    outputs=((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = Transform(
    tile=4,
    inputs=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    kernel=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    outputs=(
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -2, 0),
        (0, 1, 1, 4, 4, 0),
        (0, 1, -1, 8, -8, 1),
    ),
)

_Grid = list[list[jax.Array]]


_apart = partial(apart, static=(0,))  # the transform is a constant


def _transposed(matrix: _Matrix) -> _Matrix:
    return tuple(zip(*matrix, strict=True))


def _apply(matrix: _Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns one linear combination of `parts` per row of `matrix`.

    By operations of `lax`: a training step has thousands, and those of `jax.numpy`, or
    `+` and `*`, take longer to trace.
    """
    return [reduce(lax.add, _terms(row, parts)) for row in matrix]


def _terms(row: Sequence[float], parts: Sequence[jax.Array]) -> Iterator[jax.Array]:
    for factor, part in zip(row, parts, strict=True):
        if factor:
            same = factor == 1
            yield part if same else lax.mul(part.dtype.type(factor), part)


def _sandwich(matrix: _Matrix, grid: _Grid) -> _Grid:
    """Returns `matrix @ grid @ matrix.T`, where each entry of `grid` is an array."""
    columns = [_apply(matrix, column) for column in zip(*grid, strict=True)]
    return [_apply(matrix, row) for row in zip(*columns, strict=True)]


def _flat(grid: _Grid) -> list[jax.Array]:
    return [
        lax.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        for row in grid
        for a in row
    ]


def _square(arrays: Iterable[jax.Array], shape: tuple[int, int, int]) -> _Grid:
    """Undoes `_flat`: n * n arrays [tiles, C] -> n x n of [B, rows, columns, C]."""
    arrays = [lax.reshape(a, (*shape, a.shape[-1])) for a in arrays]
    n = math.isqrt(len(arrays))
    return [arrays[i : i + n] for i in range(0, n * n, n)]


def _interleave(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Returns the array whose slices `s::len(parts)` along an axis are the parts."""
    apart = [lax.expand_dims(part, (axis + 1,)) for part in parts]
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return lax.reshape(lax.concatenate(apart, axis + 1), shape)


def _tiles(a: jax.Array, count: int, stride: int, axis: int) -> list[jax.Array]:
    """Returns the slices `s::stride` along an axis for s < count, an entry per tile."""
    length = a.shape[axis] - count + 1
    return [lax.slice_in_dim(a, s, s + length, stride, axis) for s in range(count)]


@_apart
def _pad(_: Transform, x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _tiles_in(t: Transform, x: jax.Array, axis: int) -> list[jax.Array]:
    return _apply(t.inputs, _tiles(x, t.tile + 2, t.tile, axis))


@_apart
def _input_rows(t: Transform, x: jax.Array) -> list[jax.Array]:
    return _tiles_in(t, x, 1)


def _input_transform(t: Transform, x: jax.Array) -> list[jax.Array]:
    """Transforms every tile: [B, H, W, C] -> (tile + 2)^2 arrays [tiles, C]."""
    return _flat([_tiles_in(t, row, 2) for row in _input_rows(t, _pad(t, x))])


def _overlap_add(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Applies the transpose of padding by one and cutting tiles that overlap by two."""

    def shift(a, by):
        pad = [(0, 0, 0)] * a.ndim
        pad[axis] = (by, -by, 0)
        return lax.pad(a, a.dtype.type(0), pad)

    before, first, *middle, last, after = parts
    first, last = lax.add(first, shift(after, 1)), lax.add(last, shift(before, -1))
    return _interleave([first, *middle, last], axis)


@_apart
def _columns_back(t: Transform, *row: jax.Array) -> jax.Array:
    return _overlap_add(_apply(_transposed(t.inputs), row), 2)


@_apart
def _rows_back(t: Transform, *rows: jax.Array) -> jax.Array:
    return _overlap_add(_apply(_transposed(t.inputs), rows), 1)


def _input_transposed(
    t: Transform, tiles: Iterable[jax.Array], shape: tuple[int, int, int]
) -> jax.Array:
    """Applies the transpose of `_input_transform`."""
    return _rows_back(t, *[_columns_back(t, *row) for row in _square(tiles, shape)])


# One product transforms a whole kernel: sums of its nine taps, each a loop of its own,
# took a fifth more of the time to compile a training step, and no less to run.


def transformed(w: jax.Array, t: Transform = F4) -> list[jax.Array]:
    """Transforms the kernel: `[3, 3, C, K]` -> `(tile + 2)^2` arrays `[C, K]`."""
    return list(_stacked(w, t))


def transformed_now(w: jax.Array, t: Transform = F4) -> list[jax.Array]:
    """Returns what `transformed` does, outside of a program.

    Two small programs per shape are compiled for it, and not a loop per array.
    """
    kernels = _stacked_now(w, t)
    return [_entry(kernels, i) for i in range(len(kernels))]


@jax.jit
def _entry(kernels, i):
    return lax.dynamic_index_in_dim(kernels, i, keepdims=False)


def _stacked(w, t):
    matrix = jnp.asarray(np.kron(t.kernel, t.kernel), jnp.float32)  # [.., 9]
    taps = w.reshape(9, -1).astype(jnp.float32)
    kernels = jnp.matmul(matrix, taps, precision=lax.Precision.HIGHEST)
    return kernels.astype(w.dtype).reshape(-1, *w.shape[2:])


_stacked_now = jax.jit(_stacked, static_argnums=1)


def _kernel_transposed(t: Transform, products: list[jax.Array]) -> jax.Array:
    """Applies the transpose of `transformed`."""
    matrix = jnp.asarray(np.kron(t.kernel, t.kernel).T, jnp.float32)
    flat = jnp.stack(products).reshape(len(products), -1).astype(jnp.float32)
    taps = jnp.matmul(matrix, flat, precision=lax.Precision.HIGHEST)
    return taps.astype(products[0].dtype).reshape(3, 3, *products[0].shape)


def _output_transform(
    t: Transform, products: Iterable[jax.Array], shape: tuple[int, int, int]
) -> jax.Array:
    """Transforms the products back: (tile + 2)^2 arrays [tiles, K] -> [B, H, W, K]."""
    grid = _sandwich(t.outputs, _square(products, shape))
    return _interleave([_interleave(row, 2) for row in grid], 1)


def _tiles_out(t: Transform, g: jax.Array, axis: int) -> list[jax.Array]:
    return _apply(_transposed(t.outputs), _tiles(g, t.tile, t.tile, axis))


@_apart
def _cotangent_rows(t: Transform, g: jax.Array) -> list[jax.Array]:
    return _tiles_out(t, g, 1)


def _output_transposed(t: Transform, g: jax.Array) -> list[jax.Array]:
    """Applies the transpose of `_output_transform`."""
    return _flat([_tiles_out(t, row, 2) for row in _cotangent_rows(t, g)])


def _product_over_features(a: jax.Array, b: jax.Array) -> jax.Array:
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())))  # a @ b.T


def _tile_shape(t: Transform, x: jax.Array) -> tuple[int, int, int]:
    """Returns the number of images, of rows of tiles and of tiles per row."""
    return x.shape[0], x.shape[1] // t.tile, x.shape[2] // t.tile


def _pieces(t: Transform, x: jax.Array) -> int:
    return pieces.count(x, copies=(t.tile + 2) ** 2 // (2 * t.tile**2))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3(x: jax.Array, w: jax.Array, transform: Transform = F4) -> jax.Array:
    """Convolves with stride 1 and zero padding 1.

    Differentiable once, in reverse mode.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16; H and W are multiples of the tile.
        w: `[3, 3, C, K]`, dtype of `x`.
        transform: `F2` or `F4`.

    Returns:
        `[B, H, W, K]` in the dtype of `x`.

    >>> x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> conv3x3(x, w)[0, 0, :, 0].round().tolist()  # a corner sees 2 x 2 pixels
    [4.0, 6.0, 6.0, 4.0]
    """
    return _forward(x, transformed(w, transform), transform)[0]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def by_kernels(
    x: jax.Array, kernels: list[jax.Array], transform: Transform = F4
) -> jax.Array:
    """Returns `conv3x3` by the kernels that `transformed` returned, in its bits.

    Differentiable once, in reverse mode.
    """
    return _forward(x, kernels, transform)[0]


def _forward(x, kernels, t):
    def value(x):
        tiles = _input_transform(t, x)
        products = [lax.dot(*pair) for pair in zip(tiles, kernels, strict=True)]
        return _output_transform(t, products, _tile_shape(t, x)), tiles

    if (n := _pieces(t, x)) > 1:  # tiles of so large an input are made again
        return pieces.mapped(lambda x: value(x)[0], n, x), (x, None, kernels)
    y, tiles = value(x)
    return y, (None, tiles, kernels)


def _gradients(t, residuals, g):
    """Returns the cotangents of the input and of the transformed kernels."""
    x, tiles, kernels = residuals

    def gradients(g, tiles):
        products = _output_transposed(t, g)
        dw = [matmul.of_transposed(x, p) for x, p in zip(tiles, products, strict=True)]
        dx = [
            _product_over_features(p, u) for p, u in zip(products, kernels, strict=True)
        ]
        return dw, _input_transposed(t, dx, _tile_shape(t, g))

    if tiles is not None:
        dw, dx = gradients(g, tiles)
    else:
        piece = lambda x, g: gradients(g, _input_transform(t, x))
        dw, dx = pieces.summed(piece, _pieces(t, x), x, g)
    return dx, list(dw)


def _backward(t, residuals, g):
    dx, dw = _gradients(t, residuals, g)
    return dx, _kernel_transposed(t, dw)


conv3x3.defvjp(lambda x, w, t: _forward(x, transformed(w, t), t), _backward)
by_kernels.defvjp(_forward, _gradients)


def by_kernel(x: jax.Array, g: jax.Array, kernel: int) -> jax.Array:
    """Returns the gradient by the kernel alone, by `F4`.

    Args:
        x: float32 `[B, H, W, C]`; H and W are multiples of 4.
        g: float32 `[B, H, W, K]`, the cotangent of the output.
        kernel: 3.
    """
    del kernel

    def products(x, g):
        pairs = zip(_input_transform(F4, x), _output_transposed(F4, g), strict=True)
        return [matmul.of_transposed(*pair) for pair in pairs], None

    return _kernel_transposed(F4, pieces.summed(products, _pieces(F4, x), x, g)[0])
