"""The gradient by the kernel, by tiles, emitted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vgg_jax.nn.algorithms import GROUP, Algorithm, Registers, transposed
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
    maps, outputs = (Maps(c, a, size, algorithm.tile) for a in (x, g))
    channels, features = maps.channels, outputs.channels
    products, tiles, panel_size = algorithm.products, registers.tiles, registers.panel
    panels = c.ceil_div(features, panel_size)
    channel_groups = c.ceil_div(channels, GROUP)
    chunks = c.ceil_div(maps.tiles, tiles)
    groups = dw.dims[0]
    plane_v = GROUP * tiles + APART
    plane_m = c.add(c.mul(panels, tiles * panel_size), APART)
    plane_u = c.add(c.mul(panels, GROUP * panel_size), APART)
    zeros = c.add(channels, c.mul(panels, panel_size))
    nothing, v_at, m_at, u_at = c.arrays(
        [zeros, products * plane_v, c.mul(products, plane_m), c.mul(products, plane_u)]
    )
    c.clear(nothing, zeros)

    store_tile = storer(c, registers, v_at, plane_v)

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
                        here = c.at(left, c.mul(tile, c.lanes))
                        lefts = [c.at(here, place) for place in places]
                        there = c.at(right, c.mul(tile, panel_size))
                        totals = outer(c, registers, lefts, there, over_tiles.carried)
                        over_tiles.carried = totals
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
                grid = squared(values, algorithm.side)
                taps = flat(sandwich(c, transposed(algorithm.kernel), grid))
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
            transform_tiles(
                c,
                maps,
                algorithm.inputs,
                seen,
                nothing,
                some,
                (first_vector, vectors),
                store_tile,
            )
            transform_tiles(
                c,
                outputs,
                transposed(algorithm.outputs),
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
