"""Direct convolution, emitted, for few pixels.

There it costs the most to read the kernel, which tiles make four times as large.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from vgg_jax.nn.algorithms import Registers
from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int
from vgg_jax.nn.tiles import outer


def pieces(c: Code, arguments: list[Buffer], results: list[Buffer]) -> Int:
    """Returns the number of panels, times that of groups of pixels."""
    _, u, _, groups = arguments
    return c.mul(u.dims[0], groups.dims[0])


@contextmanager
def convolve(
    c: Code,
    arguments: list[Buffer],
    results: list[Buffer],
    *,
    registers: Registers,
    size: int,
) -> Iterator[Callable[[Int], None]]:
    """Convolves: x `[B, H, W, C]`, panels, bias `[K]`, `[groups, 0]` -> `[B, H, W, K]`.

    An element of x, panels and result has `size` bytes; the bias is float32. The pixels
    are in groups, of which `registers.rows` are computed at a time. A piece is a
    panel of a group.
    """
    (x, u, bias, groups), (y,) = arguments, results
    panel_count, group_count = u.dims[0], groups.dims[0]
    batch, height, width, _ = x.dims
    features = y.dims[3]
    units = u.dims[2]  # of 4 bytes: channels, or pairs of them
    pixels = c.mul(batch, height, width)
    panel_size = registers.panel
    (nothing,) = c.arrays([c.add(units, c.lanes)])
    c.clear(nothing, units)

    def seen(pixel, row, column, down, right):
        """Returns the address of a neighbour of a pixel, or of zeros outside."""
        row, column = c.sub(c.add(row, down), 1), c.sub(c.add(column, right), 1)
        inside = c.b.and_(c.less(row, height), c.less(column, width))
        place = c.add(pixel, c.mul(down, width), right)
        place = c.sub(place, c.add(width, 1))
        return c.b.select(inside, c.at(x.data, c.mul(place, units)), nothing)

    def products(panel, block):
        last = c.sub(pixels, 1)
        block = [c.min(pixel, last) for pixel in block]
        rows = [c.rem(c.div(pixel, width), height) for pixel in block]
        columns = [c.rem(pixel, width) for pixel in block]
        zeros = [c.zero()] * (registers.rows * registers.vectors)
        with c.loop(9, *zeros) as over_taps:
            tap = over_taps.index
            down, right = c.div(tap, 3), c.rem(tap, 3)
            places = zip(block, rows, columns, strict=True)
            lefts = [seen(*place, down, right) for place in places]
            plane = c.add(c.mul(panel, 9), tap)
            tap_at = c.at(u.data, c.mul(plane, units, panel_size))
            with c.loop(units, *over_taps.carried) as over_units:
                unit = over_units.index
                over_units.carried = outer(
                    c,
                    registers,
                    [c.at(left, unit) for left in lefts],
                    c.at(tap_at, c.mul(unit, panel_size)),
                    over_units.carried,
                    pairs=size == 2,
                )
            over_taps.carried = over_units.carried
        return over_taps.carried

    def store(total, pixel, feature, mask):
        value = c.b.fadd(total, c.load(bias.data, feature, mask))
        c.store(value, y.data, c.add(c.mul(pixel, features), feature), mask, size)

    blocks = c.ceil_div(pixels, registers.rows)

    def piece(index):
        group, panel = c.div(index, panel_count), c.rem(index, panel_count)
        first, stop = (
            c.mul(c.div(c.mul(i, blocks), group_count), registers.rows)
            for i in (group, c.add(group, 1))
        )
        with c.loop(stop, start=first, step=registers.rows) as over_blocks:
            block = [c.add(over_blocks.index, r) for r in range(registers.rows)]
            for i, total in enumerate(products(panel, block)):
                r, v = divmod(i, registers.vectors)
                feature = c.add(c.mul(panel, panel_size), v * c.lanes)
                rest = c.beyond(features, feature)
                inside = c.b.and_(c.less(0, rest), c.less(block[r], pixels))
                with c.b.if_then(inside):
                    c.with_tail(rest, partial(store, total, block[r], feature))

    yield piece
    c.free(nothing)
