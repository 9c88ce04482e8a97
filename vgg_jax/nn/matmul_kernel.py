"""Products of matrices in bfloat16, emitted: by AVX512_BF16, sums in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from vgg_jax.nn.algorithms import Registers
from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int
from vgg_jax.nn.tiles import outer

_UNITS = 256  # pairs of a panel that are multiplied at a time: they stay in L2
_TOGETHER = 2  # panels of a piece: a row of b is read for all of them


def pieces(c: Code, arguments: list[Buffer], results: list[Buffer]) -> Int:
    """Returns the number of groups of panels, times that of groups of rows."""
    *_, panels, groups = arguments
    return c.mul(c.ceil_div(panels.dims[0], _TOGETHER), groups.dims[0])


@contextmanager
def multiply(
    c: Code,
    arguments: list[Buffer],
    results: list[Buffer],
    *,
    registers: Registers,
    transposed: bool,
) -> Iterator[Callable[[Int], None]]:
    """Multiplies: a `[M, U, 2]`, b, `[panels, 0]`, `[groups, 0]` -> `[M, N]`.

    b is `[2U, N]`; `transposed`, `[N, 2U]`. Its columns are in panels, the rows of a
    in groups, of which `registers.rows` are computed at a time. A piece is a group of
    panels by one of rows; the order of a sum depends on neither.
    """
    (a, b, panels, groups), (y,) = arguments, results
    (rows, units, _), features = a.dims, y.dims[1]
    panel_size, lanes = registers.panel, c.lanes
    panel_count, group_count = panels.dims[0], groups.dims[0]
    parts = c.ceil_div(panel_count, _TOGETHER)
    blocks = c.ceil_div(rows, registers.rows)
    most = c.mul(c.ceil_div(blocks, group_count), registers.rows)  # rows of a group
    wide = _TOGETHER * panel_size
    sums_size = c.mul(most, wide)
    packed, zeros, sums = c.arrays([_UNITS * wide, lanes, c.add(sums_size, lanes)])
    c.clear(zeros, lanes)

    def packed_at(panel, unit):
        return c.at(packed, c.mul(c.add(c.mul(panel, _UNITS), unit), panel_size))

    def pack(first, start, count):
        """Copies units of panels, in the order in which they are multiplied."""
        with c.loop(count) as over_units:
            unit = over_units.index
            row = c.mul(c.add(start, unit), 2)
            for i in range(wide // lanes):
                panel, v = divmod(i, registers.vectors)
                feature = c.add(first, i * lanes)
                mask = c.mask(c.beyond(features, feature))
                places = (
                    c.add(c.mul(r, features), feature) for r in (row, c.add(row, 1))
                )
                halves = (c.load(b.data, place, mask, 2) for place in places)
                c.store(c.pairs(*halves), packed_at(panel, unit), v * lanes)

    def pack_transposed(first, start, count):
        with c.loop(count, step=lanes) as over_units:
            unit = over_units.index
            mask = c.mask(c.sub(count, unit))
            for i in range(wide // lanes):
                panel, v = divmod(i, registers.vectors)
                columns = []
                for lane in range(lanes):
                    feature = c.add(first, i * lanes + lane)
                    place = c.add(c.mul(feature, units), start, unit)
                    inside = c.less(feature, features)
                    at = c.b.select(inside, c.at(b.data, place), zeros)
                    columns.append(c.load(at, 0, mask))
                for lane, column in enumerate(c.transposed(columns)):
                    c.store(column, packed_at(panel, c.add(unit, lane)), v * lanes)

    def products(row, panel, start, count, so_far):
        """Returns the sums of a block of rows, with the products of more units."""
        last = c.sub(rows, 1)
        block = (c.min(c.add(row, r), last) for r in range(registers.rows))
        lefts = [c.at(a.data, c.add(c.mul(r, units), start)) for r in block]
        vectors = range(registers.rows * registers.vectors)
        with c.loop(count, *(c.load(so_far, i * lanes) for i in vectors)) as over_units:
            unit = over_units.index
            over_units.carried = outer(
                c,
                registers,
                [c.at(left, unit) for left in lefts],
                packed_at(panel, unit),
                over_units.carried,
                pairs=True,
            )
        return over_units.carried

    def keep(totals, so_far, row, feature):
        del row, feature
        for i, total in enumerate(totals):
            c.store(total, so_far, i * lanes)

    def finish(totals, so_far, row, feature):
        del so_far
        for i, total in enumerate(totals):
            r, v = divmod(i, registers.vectors)
            here, column = c.add(row, r), c.add(feature, v * lanes)
            rest = c.beyond(features, column)
            with c.b.if_then(c.b.and_(c.less(0, rest), c.less(here, rows))):
                place = c.add(c.mul(here, features), column)
                c.with_tail(rest, partial(c.store, total, y.data, place, size=2))

    def add_units(start, rows_of_piece, first_panel, end):
        """Multiplies by a number of units; `end` stores the sums of a block."""
        first_row, stop = rows_of_piece
        count = c.min(c.sub(units, start), _UNITS)
        first = c.mul(first_panel, panel_size)
        (pack_transposed if transposed else pack)(first, start, count)
        with c.loop(c.min(c.sub(panel_count, first_panel), _TOGETHER)) as over_panels:
            panel = over_panels.index
            feature = c.add(first, c.mul(panel, panel_size))
            with c.loop(stop, start=first_row, step=registers.rows) as over_blocks:
                row = over_blocks.index
                place = c.add(c.mul(panel, most), c.sub(row, first_row))
                so_far = c.at(sums, c.mul(place, panel_size))
                end(products(row, panel, start, count, so_far), so_far, row, feature)

    def piece(index):
        group, part = c.div(index, parts), c.rem(index, parts)
        rows_of_piece = tuple(
            c.mul(c.div(c.mul(i, blocks), group_count), registers.rows)
            for i in (group, c.add(group, 1))
        )
        first_panel = c.mul(part, _TOGETHER)
        c.clear(sums, sums_size)
        last = c.mul(c.div(c.beyond(units, 1), _UNITS), _UNITS)
        with c.loop(last, step=_UNITS) as over_units:
            add_units(over_units.index, rows_of_piece, first_panel, keep)
        add_units(last, rows_of_piece, first_panel, finish)

    yield piece
    c.free(packed)
