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
    """Sums: x `[N, C]`, of `size` bytes each -> float32 `[n, C]`, of n groups of rows.

    A piece is a group.
    """
    (x,), (y,) = arguments, results
    (rows, channels), groups = x.dims, y.dims[0]
    per_group = c.ceil_div(rows, groups)
    per_chunk = c.add(c.div(_FLOATS, channels), 1)

    def add_chunk(first, stop, out):
        with c.loop(channels, step=c.lanes) as over_vectors:
            channel = over_vectors.index
            mask = c.mask(c.sub(channels, channel))
            # Few sums at a time: all of them in a row would round the same way.
            with c.loop(stop, c.zero(), start=first) as over_rows:
                place = c.add(c.mul(over_rows.index, channels), channel)
                value = c.load(x.data, place, mask, size)
                over_rows.carried = [c.b.fadd(over_rows.carried[0], value)]
            total = c.b.fadd(c.load(out, channel, mask), over_rows.carried[0])
            c.store(total, out, channel, mask)

    def piece(group):
        out = c.at(y.data, c.mul(group, channels))
        with c.loop(channels) as over_channels:
            c.write(c.scalar(0.0), c.at(out, over_channels.index), 0)
        start = c.mul(group, per_group)
        end = c.min(c.add(start, per_group), rows)
        with c.loop(end, start=start, step=per_chunk) as over_chunks:
            first = over_chunks.index
            add_chunk(first, c.min(c.add(first, per_chunk), end), out)

    yield piece
