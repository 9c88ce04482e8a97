"""Winograd convolution F(4x4, 3x3) in plain JAX, with a hand-written gradient.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): 36
multiplications give the 4x4 outputs of a 3x3 kernel that take 144 directly.
`docs/results.md` says where that beats XLA's direct convolution on CPU in float32. The
rounding error is a few times that of a direct convolution; `tests/nn/test_conv.py`
holds it to 1e-5 relative.

The 36 products stay separate matrix products (a list, never stacked), and the
transforms are sums of strided slices, channels innermost. You may be tempted to stack
the products or to write the transforms as einsum: the transforms measured 1.2 to 3
times slower (jax 0.10). The transform along one axis is compiled apart from the one
along the other (`_apart`): XLA:CPU would fuse the two and compute the first again for
every element of the second.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import NamedSharding, PartitionSpec

TILE = 4  # outputs per tile and axis; a tile reads TILE + 2 inputs

# Transform matrices of F(4x4, 3x3): input B^T, kernel G, output A^T.
_BT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_AT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)

# One product transforms a whole kernel: 36 sums of its nine taps, each a loop of its
# own, took a fifth more of the time to compile a training step, and no less to run.
_KERNEL = np.kron(_G, _G)  # [36, 9]

_Matrix = Sequence[Sequence[float]]
_Grid = list[list[jax.Array]]


def _apart(function: Callable) -> Callable:
    """Returns `function` as a call that XLA neither inlines nor fuses."""
    compiled = jax.jit(function)

    @wraps(function)
    def call(*arrays):
        with set_xla_metadata(inlineable="false"):
            return compiled(*arrays)

    return call


def _transposed(matrix: _Matrix) -> _Matrix:
    return tuple(zip(*matrix, strict=True))


def _apply(matrix: _Matrix, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns one linear combination of `parts` per row of `matrix`."""
    combinations = []
    for row in matrix:
        terms = [p if c == 1 else c * p for c, p in zip(row, parts, strict=True) if c]
        combinations.append(sum(terms[1:], terms[0]))
    return combinations


def _sandwich(matrix: _Matrix, grid: _Grid) -> _Grid:
    """Returns `matrix @ grid @ matrix.T`, where each entry of `grid` is an array."""
    columns = [_apply(matrix, column) for column in zip(*grid, strict=True)]
    return [_apply(matrix, row) for row in zip(*columns, strict=True)]


def _flat(grid: _Grid) -> list[jax.Array]:
    return [a.reshape(-1, a.shape[-1]) for row in grid for a in row]


def _square(arrays: Iterable[jax.Array], shape: tuple[int, int, int]) -> _Grid:
    """Undoes `_flat`: 36 arrays [tiles, C] -> 6 x 6 of [B, H / 4, W / 4, C]."""
    n = TILE + 2
    arrays = [a.reshape(*shape, a.shape[-1]) for a in arrays]
    return [arrays[i : i + n] for i in range(0, n * n, n)]


def _interleave(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Returns the array whose slices `s::len(parts)` along an axis are the parts."""
    stacked = jnp.stack(parts, axis + 1)
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return stacked.reshape(shape)


def _tiles(a: jax.Array, count: int, axis: int) -> list[jax.Array]:
    """Returns the slices `s::TILE` along an axis for s < count, one entry per tile."""
    n = (a.shape[axis] - count + TILE) // TILE
    return [
        lax.slice_in_dim(a, s, s + (n - 1) * TILE + 1, TILE, axis) for s in range(count)
    ]


@_apart
def _pad(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


@_apart
def _input_rows(x: jax.Array) -> list[jax.Array]:
    return _apply(_BT, _tiles(x, TILE + 2, 1))


def _input_transform(x: jax.Array) -> list[jax.Array]:
    """Transforms every tile: [B, H, W, C] -> 36 arrays [tiles, C]."""
    rows = _input_rows(_pad(x))
    return _flat([_apply(_BT, _tiles(row, TILE + 2, 2)) for row in rows])


def _overlap_add(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Applies the transpose of padding by one and cutting tiles that overlap by two."""

    def shift(a, by):
        pad = [(0, 0, 0)] * a.ndim
        pad[axis] = (by, -by, 0)
        return lax.pad(a, jnp.zeros((), a.dtype), pad)

    first = parts[1] + shift(parts[5], 1)
    last = parts[4] + shift(parts[0], -1)
    return _interleave([first, parts[2], parts[3], last], axis)


@_apart
def _columns_back(*row: jax.Array) -> jax.Array:
    return _overlap_add(_apply(_transposed(_BT), row), 2)


@_apart
def _rows_back(*rows: jax.Array) -> jax.Array:
    return _overlap_add(_apply(_transposed(_BT), rows), 1)


def _input_transposed(
    tiles: Iterable[jax.Array], shape: tuple[int, int, int]
) -> jax.Array:
    """Applies the transpose of `_input_transform`."""
    return _rows_back(*[_columns_back(*row) for row in _square(tiles, shape)])


def _kernel_transform(w: jax.Array) -> list[jax.Array]:
    """Transforms the kernel: [3, 3, C, K] -> 36 arrays [C, K]."""
    taps = w.reshape(_KERNEL.shape[1], -1)
    kernels = jnp.matmul(_KERNEL.astype(w.dtype), taps, precision=lax.Precision.HIGHEST)
    return list(kernels.reshape(-1, *w.shape[2:]))


def _kernel_transposed(products: list[jax.Array]) -> jax.Array:
    """Applies the transpose of `_kernel_transform`."""
    flat = jnp.stack(products).reshape(len(products), -1)
    back = _KERNEL.T.astype(flat.dtype)
    taps = jnp.matmul(back, flat, precision=lax.Precision.HIGHEST)
    return taps.reshape(3, 3, *products[0].shape)


def _output_transform(
    products: Iterable[jax.Array], shape: tuple[int, int, int]
) -> jax.Array:
    """Transforms the products back: 36 arrays [tiles, K] -> [B, H, W, K]."""
    grid = _sandwich(_AT, _square(products, shape))
    return _interleave([_interleave(row, 2) for row in grid], 1)


@_apart
def _cotangent_rows(g: jax.Array) -> list[jax.Array]:
    return _apply(_transposed(_AT), _tiles(g, TILE, 1))


def _output_transposed(g: jax.Array) -> list[jax.Array]:
    """Applies the transpose of `_output_transform`: -> 36 arrays [tiles, K]."""
    rows = _cotangent_rows(g)
    return _flat([_apply(_transposed(_AT), _tiles(row, TILE, 2)) for row in rows])


def product_over_pixels(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `a.T @ b`, `[C, K]`, whole on each device of a mesh.

    Args:
        a: `[pixels, C]`; the pixels of a batch may be spread over devices.
        b: `[pixels, K]`, spread alike.
    """
    whole = NamedSharding(jax.typeof(a).sharding.mesh, PartitionSpec())
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), out_sharding=whole)


def _product_over_features(a: jax.Array, b: jax.Array) -> jax.Array:
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())))  # a @ b.T


def _tile_shape(x: jax.Array) -> tuple[int, int, int]:
    """Returns the number of images, of rows of tiles and of tiles per row."""
    return x.shape[0], x.shape[1] // TILE, x.shape[2] // TILE


@jax.custom_vjp
def conv3x3(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zero padding 1, by Winograd F(4x4, 3x3).

    Differentiable once, in reverse mode.

    Args:
        x: float32 `[B, H, W, C]`; H and W are multiples of 4.
        w: float32 `[3, 3, C, K]`.

    Returns:
        float32 `[B, H, W, K]`.

    >>> x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> conv3x3(x, w)[0, 0, :, 0].round().tolist()  # a corner sees 2 x 2 pixels
    [4.0, 6.0, 6.0, 4.0]
    """
    return _forward(x, w)[0]


def _forward(x, w):
    tiles = _input_transform(x)
    kernels = _kernel_transform(w)
    products = [t @ u for t, u in zip(tiles, kernels, strict=True)]
    return _output_transform(products, _tile_shape(x)), (tiles, w)


def _backward(residuals, g):
    tiles, w = residuals
    products = _output_transposed(g)
    kernels = _kernel_transform(w)
    dw = [product_over_pixels(t, p) for t, p in zip(tiles, products, strict=True)]
    dx = [_product_over_features(p, u) for p, u in zip(products, kernels, strict=True)]
    return _input_transposed(dx, _tile_shape(g)), _kernel_transposed(dw)


conv3x3.defvjp(_forward, _backward)
