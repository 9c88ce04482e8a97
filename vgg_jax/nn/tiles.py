"""The passes of a convolution by tiles, emitted such that tiles stay in the cache.

XLA writes every tile that Winograd's algorithm transforms to memory, reads it for the
products, and writes and reads those. Here a thread takes some tiles all the way.

Types: maps are float32 or bfloat16, all that is in between is float32.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from vgg_jax.nn import winograd
from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int

_Matrix = Sequence[Sequence[float]]
_Factors = Sequence[_Matrix]  # of a matrix: fewer operations than by their product
_Grid = Sequence[Sequence[Any]]


def _transposed(factors: _Factors) -> _Factors:
    return tuple(tuple(zip(*matrix, strict=True)) for matrix in reversed(factors))


class Algorithm(NamedTuple):
    """A convolution along one axis, with three taps.

    Attributes:
        name: of it, in those of the handlers.
        tile: outputs of a tile.
        before: how many inputs of a tile come before its first output.
        inputs: transforms the inputs of a tile, `[products, inputs]`.
        kernel: transforms the taps, `[products, 3]`.
        outputs: transforms the products back, `[tile, products]`.
    """

    name: str
    tile: int
    before: int
    inputs: _Factors
    kernel: _Factors
    outputs: _Factors

    @property
    def seen(self) -> int:
        """Inputs of a tile."""
        return len(self.inputs[-1][0])

    @property
    def side(self) -> int:
        """Products along one axis."""
        return len(self.kernel[0])

    @property
    def products(self) -> int:
        return self.side**2


F4 = Algorithm(
    name="f4",
    tile=4,
    before=1,
    inputs=(
        (
            (1, 0, 0, 0, 0, 0),
            (0, 1, 1, 0, 0, 0),
            (0, 1, -1, 0, 0, 0),
            (0, 0, 0, 1, 2, 0),
            (0, 0, 0, 1, -2, 0),
            (0, 0, 0, 0, 0, 1),
        ),
        (
            (4, 0, -5, 0, 1, 0),
            (0, 0, -4, 0, 1, 0),
            (0, -4, 0, 1, 0, 0),
            (0, 0, -1, 0, 1, 0),
            (0, -1, 0, 1, 0, 0),
            (0, 4, 0, -5, 0, 1),
        ),
    ),
    kernel=(winograd.F4.kernel,),
    outputs=(
        (
            (1, 1, 0, 1, 0, 0),
            (0, 0, 1, 0, 2, 0),
            (0, 1, 0, 4, 0, 0),
            (0, 0, 1, 0, 8, 1),
        ),
        (
            (1, 0, 0, 0, 0, 0),
            (0, 1, 1, 0, 0, 0),
            (0, 1, -1, 0, 0, 0),
            (0, 0, 0, 1, 1, 0),
            (0, 0, 0, 1, -1, 0),
            (0, 0, 0, 0, 0, 1),
        ),
    ),
)
# Maps of two pixels: y0 = w1 x0 + w2 x1 and y1 = w0 x0 + w1 x1, by Karatsuba's three
# products instead of four.
PAIRS = Algorithm(
    name="pairs",
    tile=2,
    before=0,
    inputs=(((1, 1), (0, 1), (1, 0)),),
    kernel=(((0, 1, 0), (0, -1, 1), (1, -1, 0)),),
    outputs=(((1, 1, 0), (1, 0, 1)),),
)
ALGORITHMS = (F4, PAIRS)


class Registers(NamedTuple):
    """How the products are laid out over the registers of a CPU.

    Attributes:
        lanes: floats of a vector.
        rows: tiles that are multiplied together.
        vectors: vectors of features that they are multiplied by.
        channels: channels whose gradients are summed together; divides `lanes`.
        tiles: tiles that a thread transforms at a time, a multiple of `rows`.
    """

    lanes: int
    rows: int
    vectors: int
    channels: int
    tiles: int

    @property
    def panel(self) -> int:
        """Features of `vectors`."""
        return self.lanes * self.vectors


REGISTERS = {
    "AVX512": Registers(lanes=16, rows=14, vectors=2, channels=8, tiles=56),
    "AVX2": Registers(lanes=8, rows=6, vectors=2, channels=4, tiles=54),
}
GROUP = 64  # channels whose gradients by the kernel are computed together
_APART = 16  # floats between arrays that would else fall on the same lines of the cache


def _sandwich(c: Code, factors: _Factors, grid: _Grid) -> _Grid:
    """Returns `m @ grid @ m.T` of vectors, where m is the product of the factors."""

    def transformed(parts):
        for matrix in reversed(factors):
            parts = c.combined(matrix, parts)
        return parts

    columns = [transformed(column) for column in zip(*grid, strict=True)]
    return [transformed(row) for row in zip(*columns, strict=True)]


def _flat(grid: _Grid) -> list[Any]:
    return [value for row in grid for value in row]


def _squared(values: Sequence[Any], side: int) -> list[Sequence[Any]]:
    return [values[i * side : (i + 1) * side] for i in range(side)]


class _Maps:
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


def _transform_tiles(
    c: Code,
    maps: _Maps,
    factors: _Factors,
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
                for p, value in enumerate(_flat(_sandwich(c, factors, grid))):
                    store(p, tile, vector, value)

            c.with_tail(c.beyond(maps.channels, channel), emit)


def _storer(
    c: Code, registers: Registers, v_at: Any, plane: Int
) -> Callable[[int, Int, Int, Any], None]:
    """Returns what stores transformed inputs, `[products, vectors, tiles, lanes]`."""

    def store(p, tile, vector, value):
        place = c.mul(c.add(c.mul(vector, registers.tiles), tile), c.lanes)
        c.store(value, v_at, c.add(c.mul(p, plane), place))

    return store


@contextmanager
def kernels(
    c: Code,
    arguments: list[Buffer],
    results: list[Buffer],
    *,
    algorithm: Algorithm,
    registers: Registers,
    flipped: bool,
) -> Iterator[Callable[[Int], None]]:
    """Transforms kernels: `[3, 3, C, K]` float32 -> panels, as `convolve` reads them.

    Panels `[panels, products, inputs, panel]` have K in panels, C as inputs, up to a
    whole vector; `flipped` ones, of the convolution that is the gradient by the input,
    C in panels and K as inputs. A piece is a panel.
    """
    (w,), (u,) = arguments, results
    *_, channels, features = w.dims
    padded, panel_size = u.dims[2], registers.panel
    zeros, square = c.arrays([c.lanes, 9 * c.lanes**2])
    c.clear(zeros, c.lanes)

    def store(panel, row, v, taps):
        values = _flat(_sandwich(c, algorithm.kernel, _squared(taps, 3)))
        for p, value in enumerate(values):
            plane = c.add(c.mul(panel, algorithm.products), p)
            place = c.mul(c.add(c.mul(plane, padded), row), panel_size)
            c.store(value, u.data, c.add(place, v * c.lanes))

    def rows_of(tap, first_channel, feature):
        """Returns the addresses of as many rows as a vector has floats."""
        for lane in range(c.lanes):
            channel = c.add(first_channel, lane)
            row = c.mul(c.add(c.mul(tap, channels), channel), features)
            inside = c.b.and_(c.less(channel, channels), c.less(feature, features))
            address = c.at(w.data, c.add(row, feature))
            yield c.b.select(inside, address, zeros)

    def piece(panel):
        with c.loop(padded) as over_inputs:
            row = over_inputs.index
            for v in range(registers.vectors):
                first = c.add(c.mul(panel, panel_size), v * c.lanes)
                rest = c.b.select(
                    c.less(row, channels), c.beyond(features, first), c.value(0)
                )
                mask = c.mask(rest)
                starts = (c.add(c.mul(tap, channels), row) for tap in range(9))
                places = (c.add(c.mul(start, features), first) for start in starts)
                taps = [c.load(w.data, place, mask) for place in places]
                store(panel, row, v, taps)

    def flipped_piece(panel):
        with c.loop(padded, step=c.lanes) as over_inputs:
            first_row = over_inputs.index
            mask = c.mask(c.beyond(features, first_row))
            for v in range(registers.vectors):
                first = c.add(c.mul(panel, panel_size), v * c.lanes)
                for tap in range(9):
                    addresses = rows_of(8 - tap, first, first_row)
                    rows = [c.load(address, 0, mask) for address in addresses]
                    for lane, row in enumerate(c.transposed(rows)):
                        c.store(row, square, (lane * 9 + tap) * c.lanes)
                with c.loop(c.lanes) as over_lanes:
                    lane = over_lanes.index
                    here = c.at(square, c.mul(lane, 9 * c.lanes))
                    taps = [c.load(here, tap * c.lanes) for tap in range(9)]
                    store(panel, c.add(first_row, lane), v, taps)

    yield flipped_piece if flipped else piece
    c.free(zeros)


def convolve_pieces(
    c: Code,
    arguments: list[Buffer],
    results: list[Buffer],
    *,
    algorithm: Algorithm,
    registers: Registers,
) -> Int:
    """Returns the number of blocks of tiles, times that of groups of panels."""
    x, _, _, groups = arguments
    maps = _Maps(c, x, 4, algorithm.tile)
    return c.mul(c.ceil_div(maps.tiles, registers.tiles), groups.dims[0])


@contextmanager
def convolve(
    c: Code,
    arguments: list[Buffer],
    results: list[Buffer],
    *,
    algorithm: Algorithm,
    registers: Registers,
    size: int,
) -> Iterator[Callable[[Int], None]]:
    """Convolves: x `[B, H, W, C]`, panels, bias `[K]`, groups `[n]` -> `[B, H, W, K]`.

    The panels are computed in n groups, so that few tiles make several pieces. An
    element of x and of the result has `size` bytes; the bias is float32.
    """
    (x, u, bias, groups), (y,) = arguments, results
    panels, _, padded, _ = u.dims
    group_count = groups.dims[0]
    vectors = c.div(padded, c.lanes)
    maps, outputs = (_Maps(c, a, size, algorithm.tile) for a in (x, y))
    products, tiles, panel_size = algorithm.products, registers.tiles, registers.panel
    plane_v = c.add(c.mul(padded, tiles), _APART)
    plane_m = tiles * panel_size + _APART
    nothing, dump, v_at, m_at = c.arrays(
        [
            padded,
            c.mul(panels, panel_size),
            c.mul(products, plane_v),
            products * plane_m,
        ]
    )
    c.clear(nothing, padded)

    store_tile = _storer(c, registers, v_at, plane_v)

    def multiply(panel, count):
        with c.loop(products) as over_products:
            p = over_products.index
            left_plane = c.at(v_at, c.mul(p, plane_v))
            plane = c.add(c.mul(panel, products), p)
            right_plane = c.at(u.data, c.mul(plane, padded, panel_size))
            out = c.at(m_at, c.mul(p, plane_m))
            with c.loop(count, step=registers.rows) as over_rows:
                row = over_rows.index
                left_rows = c.at(left_plane, c.mul(row, c.lanes))
                zeros = [c.zero()] * (registers.rows * registers.vectors)
                with c.loop(vectors, *zeros) as over_vectors:
                    vector = over_vectors.index
                    left = c.at(left_rows, c.mul(vector, tiles * c.lanes))
                    right = c.at(right_plane, c.mul(vector, c.lanes * panel_size))
                    totals = over_vectors.carried
                    for lane in range(c.lanes):
                        at = c.at(right, lane * panel_size)
                        places = [(r * c.lanes + lane) for r in range(registers.rows)]
                        totals = _outer(c, registers, left, places, at, totals)
                    over_vectors.carried = totals
                for i, total in enumerate(over_vectors.carried):
                    r, v = divmod(i, registers.vectors)
                    place = c.mul(c.add(row, r), panel_size)
                    c.store(total, out, c.add(place, v * c.lanes))

    def transform_back(panel, first, count):
        with c.loop(count) as over_tiles:
            tile = over_tiles.index
            pixels = outputs.pixels(c.add(first, tile), 0, algorithm.tile, dump)

            def emit(feature, place, mask):
                values = [
                    c.load(m_at, c.add(place, p * plane_m)) for p in range(products)
                ]
                grid = _squared(values, algorithm.side)
                values = _flat(_sandwich(c, algorithm.outputs, grid))
                shift = c.load(bias.data, feature, mask)
                for value, pixel in zip(values, _flat(pixels), strict=True):
                    c.store(c.b.fadd(value, shift), pixel, feature, mask, size)

            for v in range(registers.vectors):
                feature = c.add(c.mul(panel, panel_size), v * c.lanes)
                place = c.add(c.mul(tile, panel_size), v * c.lanes)
                rest = c.beyond(outputs.channels, feature)
                with c.b.if_then(c.less(0, rest)):
                    c.with_tail(rest, partial(emit, feature, place))

    def piece(index):
        block, group = c.div(index, group_count), c.rem(index, group_count)
        first = c.mul(block, tiles)
        count = c.min(tiles, c.sub(maps.tiles, first))
        _transform_tiles(
            c,
            maps,
            algorithm.inputs,
            (algorithm.before, algorithm.seen),
            nothing,
            (first, count),
            (0, vectors),
            store_tile,
        )
        start, stop = (
            c.div(c.mul(i, panels), group_count) for i in (group, c.add(group, 1))
        )
        with c.loop(stop, start=start) as over_panels:
            multiply(over_panels.index, count)
            transform_back(over_panels.index, first, count)

    yield piece
    c.free(nothing)


def _outer(c: Code, registers: Registers, left, places, right, totals) -> list[Any]:
    """Adds floats of `left`, at some places, times the vectors at `right`."""
    vectors = [c.load(right, v * c.lanes) for v in range(registers.vectors)]
    factors = (c.broadcast(left, place) for place in places)
    pairs = ((factor, vector) for factor in factors for vector in vectors)
    return [c.fma(*pair, total) for pair, total in zip(pairs, totals, strict=True)]


def by_kernel_pieces(
    c: Code,
    arguments: list[Buffer],
    results: list[Buffer],
    **_: Any,
) -> Int:
    """Returns the number of groups of channels, times that of groups of tiles."""
    channels, groups = arguments[0].dims[3], results[0].dims[0]
    return c.mul(c.ceil_div(channels, GROUP), groups)


@contextmanager
def by_kernel(
    c: Code,
    arguments: list[Buffer],
    results: list[Buffer],
    *,
    algorithm: Algorithm,
    registers: Registers,
    size: int,
) -> Iterator[Callable[[Int], None]]:
    """Computes the gradient by the kernel, of n groups of tiles.

    x `[B, H, W, C]`, cotangent `[B, H, W, K]`, of `size` bytes each -> float32
    `[n, 9, C, K]`. A piece is that of one group of tiles and `GROUP` channels.
    """
    (x, g), (dw,) = arguments, results
    maps, outputs = (_Maps(c, a, size, algorithm.tile) for a in (x, g))
    channels, features = maps.channels, outputs.channels
    products, tiles, panel_size = algorithm.products, registers.tiles, registers.panel
    panels = c.ceil_div(features, panel_size)
    channel_groups = c.ceil_div(channels, GROUP)
    chunks = c.ceil_div(maps.tiles, tiles)
    groups = dw.dims[0]
    plane_v = GROUP * tiles + _APART
    plane_m = c.add(c.mul(panels, tiles * panel_size), _APART)
    plane_u = c.add(c.mul(panels, GROUP * panel_size), _APART)
    zeros = c.add(channels, c.mul(panels, panel_size))
    nothing, v_at, m_at, u_at = c.arrays(
        [zeros, products * plane_v, c.mul(products, plane_m), c.mul(products, plane_u)]
    )
    c.clear(nothing, zeros)

    store_tile = _storer(c, registers, v_at, plane_v)

    def store_cotangent(p, tile, vector, value):
        panel, v = (f(vector, registers.vectors) for f in (c.div, c.rem))
        place = c.add(
            c.mul(c.add(c.mul(panel, tiles), tile), panel_size), c.mul(v, c.lanes)
        )
        c.store(value, m_at, c.add(c.mul(p, plane_m), place))

    def sums_at(panel, channel):
        """Returns where the sums of a panel and a channel of the group lie."""
        return c.mul(c.add(c.mul(panel, GROUP), channel), panel_size)

    def multiply(count, vectors):
        with c.loop(products) as over_products, c.loop(panels) as over_panels:
            p, panel = over_products.index, over_panels.index
            place = c.add(c.mul(p, plane_m), c.mul(panel, tiles * panel_size))
            right = c.at(m_at, place)
            with c.loop(vectors) as over_vectors:
                vector = over_vectors.index
                place = c.add(c.mul(p, plane_v), c.mul(vector, tiles * c.lanes))
                left = c.at(v_at, place)
                for first in range(0, c.lanes, registers.channels):
                    channel = c.add(c.mul(vector, c.lanes), first)
                    at = c.at(u_at, c.add(c.mul(p, plane_u), sums_at(panel, channel)))
                    places = range(first, first + registers.channels)
                    count_of_sums = registers.channels * registers.vectors
                    sums = [c.load(at, i * c.lanes) for i in range(count_of_sums)]
                    with c.loop(count, *sums) as over_tiles:
                        tile = over_tiles.index
                        over_tiles.carried = _outer(
                            c,
                            registers,
                            c.at(left, c.mul(tile, c.lanes)),
                            places,
                            c.at(right, c.mul(tile, panel_size)),
                            over_tiles.carried,
                        )
                    for i, total in enumerate(over_tiles.carried):
                        c.store(total, at, i * c.lanes)

    def transform_back(group, first_channel):
        count = c.min(GROUP, c.sub(channels, first_channel))
        with c.loop(count) as over_channels, c.loop(panels) as over_panels:
            channel, panel = over_channels.index, over_panels.index

            def emit(feature, place, mask):
                values = [
                    c.load(u_at, c.add(place, c.mul(p, plane_u)))
                    for p in range(products)
                ]
                grid = _squared(values, algorithm.side)
                taps = _flat(_sandwich(c, _transposed(algorithm.kernel), grid))
                for tap, value in enumerate(taps):
                    row = c.mul(c.add(c.mul(group, 9), tap), channels)
                    row = c.add(row, first_channel, channel)
                    at = c.add(c.mul(row, features), feature)
                    c.store(value, dw.data, at, mask)

            for v in range(registers.vectors):
                feature = c.add(c.mul(panel, panel_size), v * c.lanes)
                place = c.add(sums_at(panel, channel), v * c.lanes)
                rest = c.beyond(features, feature)
                with c.b.if_then(c.less(0, rest)):
                    c.with_tail(rest, partial(emit, feature, place))

    def piece(index):
        group, channel_group = (f(index, channel_groups) for f in (c.div, c.rem))
        first_channel = c.mul(channel_group, GROUP)
        vectors = c.ceil_div(c.min(GROUP, c.sub(channels, first_channel)), c.lanes)
        c.clear(u_at, c.mul(products, plane_u))
        start, stop = (
            c.div(c.mul(i, chunks), groups) for i in (group, c.add(group, 1))
        )
        with c.loop(stop, start=start) as over_chunks:
            first = c.mul(over_chunks.index, tiles)
            some = first, c.min(tiles, c.sub(maps.tiles, first))
            first_vector = c.mul(channel_group, GROUP // c.lanes)
            seen = algorithm.before, algorithm.seen
            _transform_tiles(
                c,
                maps,
                algorithm.inputs,
                seen,
                nothing,
                some,
                (first_vector, vectors),
                store_tile,
            )
            _transform_tiles(
                c,
                outputs,
                _transposed(algorithm.outputs),
                (0, algorithm.tile),
                nothing,
                some,
                (0, c.mul(panels, registers.vectors)),
                store_cotangent,
            )
            multiply(some[1], vectors)
        transform_back(group, first_channel)

    yield piece
    c.free(nothing)
