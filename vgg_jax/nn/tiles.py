"""The passes of a convolution by tiles, emitted such that tiles stay in the cache.

XLA writes every tile that Winograd's algorithm transforms to memory, reads it for the
products, and writes and reads those. Here a thread takes some tiles all the way.

Types: maps are float32 or bfloat16, all that is in between is float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

from vgg_jax.nn.algorithms import Factors, Registers
from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int

_Grid = Sequence[Sequence[Any]]
APART = 16  # floats between arrays that would else fall on the same lines of the cache


def sandwich(c: Code, factors: Factors, grid: _Grid) -> _Grid:
    """Returns `m @ grid @ m.T` of vectors, where m is the product of the factors."""

    def transformed(parts):
        for matrix in reversed(factors):
            parts = c.combined(matrix, parts)
        return parts

    columns = [transformed(column) for column in zip(*grid, strict=True)]
    return [transformed(row) for row in zip(*columns, strict=True)]


def flat(grid: _Grid) -> list[Any]:
    return [value for row in grid for value in row]


def squared(values: Sequence[Any], side: int) -> list[Sequence[Any]]:
    return [values[i * side : (i + 1) * side] for i in range(side)]


class Maps:
    """Maps `[B, H, W, C]`, and the tiles of them.

    Attributes:
        data: their address.
        size: bytes of an element.
        channels: C.
        tiles: number of tiles.
    """

    def __init__(self, c: Code, buffer: Buffer, size: int, tile: int):
        self._c, self._tile = c, tile
        self.data, self.size = buffer.data, size
        images, self._height, self._width, self.channels = buffer.dims
        self._across = c.ceil_div(self._width, tile)
        self._per_image = c.mul(c.ceil_div(self._height, tile), self._across)
        self.tiles = c.mul(images, self._per_image)

    def pixels(self, tile: Int, before: int, count: int, outside: Any) -> _Grid:
        """Returns the addresses of count x count pixels, or of what is `outside`.

        They start so many rows and columns before the first of the tile.
        """
        c = self._c
        image, place = c.div(tile, self._per_image), c.rem(tile, self._per_image)
        starts = c.div(place, self._across), c.rem(place, self._across)
        rows, columns = (
            [c.sub(c.add(c.mul(start, self._tile), i), before) for i in range(count)]
            for start in starts
        )
        row_is_inside = [c.less(row, self._height) for row in rows]
        column_is_inside = [c.less(column, self._width) for column in columns]
        first = c.mul(image, self._height)
        line = [c.mul(c.add(first, row), self._width) for row in rows]
        address = lambda i, j: c.at(
            self.data, c.mul(c.add(line[i], columns[j]), self.channels), self.size
        )
        inside = lambda i, j: c.b.and_(row_is_inside[i], column_is_inside[j])
        return [
            [c.b.select(inside(i, j), address(i, j), outside) for j in range(count)]
            for i in range(count)
        ]


def transform_tiles(
    c: Code,
    maps: Maps,
    factors: Factors,
    seen: tuple[int, int],
    nothing: Any,
    tiles: tuple[Int, Int],
    vectors: tuple[Int, Int],
    store: Callable[[int, Int, Int, Any], None],
) -> None:
    """Transforms some channels of some tiles.

    Args:
        c: where it is emitted.
        maps: which the tiles are of.
        factors: of the transform.
        seen: how many pixels before the tile's first, and how many along an axis.
        nothing: an array of zeros as long as there are channels.
        tiles: the first, and how many.
        vectors: the first of the channels, and how many.
        store: `(product, tile, vector, value)`; the last two counted from the first.
    """
    (first, count), (first_vector, vector_count) = tiles, vectors
    with c.loop(count) as over_tiles:
        tile = over_tiles.index
        pixels = maps.pixels(c.add(first, tile), *seen, nothing)
        with c.loop(vector_count) as over_vectors:
            vector = over_vectors.index
            channel = c.mul(c.add(first_vector, vector), c.lanes)

            def emit(mask):
                grid = [
                    [c.load(pixel, channel, mask, maps.size) for pixel in row]
                    for row in pixels
                ]
                for p, value in enumerate(flat(sandwich(c, factors, grid))):
                    store(p, tile, vector, value)

            c.with_tail(c.beyond(maps.channels, channel), emit)


def storer(
    c: Code, registers: Registers, v_at: Any, plane: Int
) -> Callable[[int, Int, Int, Any], None]:
    """Returns what stores transformed inputs, `[products, vectors, tiles, lanes]`."""

    def store(p, tile, vector, value):
        place = c.mul(c.add(c.mul(vector, registers.tiles), tile), c.lanes)
        c.store(value, v_at, c.add(c.mul(p, plane), place))

    return store


def outer(
    c: Code, registers: Registers, lefts, right, totals, *, pairs: bool = False
) -> list[Any]:
    """Adds the floats at `lefts` times the vectors at `right`, or pairs of bfloat16."""
    multiply = c.fma_pairs if pairs else c.fma
    vectors = [c.load(right, v * c.lanes) for v in range(registers.vectors)]
    factors = (c.broadcast(left, 0) for left in lefts)
    both = ((factor, vector) for factor in factors for vector in vectors)
    return [multiply(*one, total) for one, total in zip(both, totals, strict=True)]
