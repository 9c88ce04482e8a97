"""Convolution by tiles, emitted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from vgg_jax.nn.algorithms import Algorithm, Registers
from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int
from vgg_jax.nn.tiles import (
    APART,
    Maps,
    flat,
    outer,
    sandwich,
    squared,
    storer,
    transform_tiles,
)


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
    maps = Maps(c, x, 4, algorithm.tile)
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
    """Convolves: x `[B, H, W, C]`, panels, bias `[K]`, `[groups, 0]` -> `[B, H, W, K]`.

    The panels are computed in groups, so that few tiles make several pieces. An
    element of x and of the result has `size` bytes; the bias is float32.
    """
    (x, u, bias, groups), (y,) = arguments, results
    panels, _, padded, _ = u.dims
    group_count = groups.dims[0]
    vectors = c.div(padded, c.lanes)
    maps, outputs = (Maps(c, a, size, algorithm.tile) for a in (x, y))
    products, tiles, panel_size = algorithm.products, registers.tiles, registers.panel
    plane_v = c.add(c.mul(padded, tiles), APART)
    plane_m = tiles * panel_size + APART
    nothing, dump, v_at, m_at = c.arrays(
        [
            padded,
            c.mul(panels, panel_size),
            c.mul(products, plane_v),
            products * plane_m,
        ]
    )
    c.clear(nothing, padded)

    store_tile = storer(c, registers, v_at, plane_v)

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
                    for lane in range(registers.depth):
                        at = c.at(right, lane * panel_size)
                        places = (r * c.lanes + lane for r in range(registers.rows))
                        lefts = [c.at(left, place) for place in places]
                        totals = outer(c, registers, lefts, at, totals)
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
                grid = squared(values, algorithm.side)
                values = flat(sandwich(c, algorithm.outputs, grid))
                shift = c.load(bias.data, feature, mask)
                for value, pixel in zip(values, flat(pixels), strict=True):
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
        transform_tiles(
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
