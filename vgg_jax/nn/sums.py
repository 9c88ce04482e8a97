"""Sums over the pixels of maps, emitted: XLA:CPU's own are slow within a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int

_FLOATS = 16384  # that are read in turn for each vector of channels: they stay in L2


@contextmanager
def over_pixels(
    c: Code, arguments: list[Buffer], results: list[Buffer], *, size: int
) -> Iterator[Callable[[Int], None]]:
    """Sums x, `[N, C]`, or y and x * y, of `size` bytes each, of n groups of rows.

    To float32 `[n, C]`, or `[n, 2, C]`. A piece is a group.
    """
    *_, x = arguments
    (y,) = results
    (rows, channels), groups = x.dims, y.dims[0]
    per_group = c.ceil_div(rows, groups)
    per_chunk = c.add(c.div(_FLOATS, channels), 1)

    def terms(place, mask):
        values = [c.load(a.data, place, mask, size) for a in arguments]
        return [values[-1], c.b.fmul(*values)] if values[1:] else values

    def add_chunk(first, stop, out):
        with c.loop(channels, step=c.lanes) as over_vectors:
            channel = over_vectors.index
            mask = c.mask(c.sub(channels, channel))
            # Few sums at a time: all of them in a row would round the same way.
            zeros = [c.zero() for _ in arguments]
            with c.loop(stop, *zeros, start=first) as over_rows:
                place = c.add(c.mul(over_rows.index, channels), channel)
                pairs = zip(over_rows.carried, terms(place, mask), strict=True)
                over_rows.carried = [c.b.fadd(*pair) for pair in pairs]
            for i, chunk in enumerate(over_rows.carried):
                place = c.add(c.mul(i, channels), channel)
                c.store(c.b.fadd(c.load(out, place, mask), chunk), out, place, mask)

    def piece(group):
        sums = c.mul(len(arguments), channels)
        out = c.at(y.data, c.mul(group, sums))
        with c.loop(sums) as over_sums:
            c.write(c.scalar(0.0), c.at(out, over_sums.index), 0)
        start = c.mul(group, per_group)
        end = c.min(c.add(start, per_group), rows)
        with c.loop(end, start=start, step=per_chunk) as over_chunks:
            first = over_chunks.index
            add_chunk(first, c.min(c.add(first, per_chunk), end), out)

    yield piece
