"""The kernels that tiles are multiplied by, emitted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vgg_jax.nn.algorithms import Algorithm, Registers
from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int
from vgg_jax.nn.tiles import flat, sandwich, squared


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
        values = flat(sandwich(c, algorithm.kernel, squared(taps, 3)))
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
                with c.loop(9) as over_taps:
                    tap = over_taps.index
                    addresses = rows_of(c.sub(8, tap), first, first_row)
                    rows = [c.load(address, 0, mask) for address in addresses]
                    for lane, row in enumerate(c.transposed(rows)):
                        c.store(row, square, c.mul(c.add(lane * 9, tap), c.lanes))
                with c.loop(c.lanes) as over_lanes:
                    lane = over_lanes.index
                    here = c.at(square, c.mul(lane, 9 * c.lanes))
                    taps = [c.load(here, tap * c.lanes) for tap in range(9)]
                    store(panel, c.add(first_row, lane), v, taps)

    yield flipped_piece if flipped else piece
    c.free(zeros)
