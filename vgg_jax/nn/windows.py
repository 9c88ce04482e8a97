"""Max pooling of 2x2 windows and its gradient, emitted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

from vgg_jax.nn.ffi import Buffer
from vgg_jax.nn.llvm import Code, Int

_ROWS = 8  # of windows, which make a piece


def pieces(c: Code, arguments: list[Buffer], results: list[Buffer]) -> Int:
    """Returns how often `_ROWS` rows of windows go into all of them."""
    images, height, *_ = arguments[0].dims
    return c.ceil_div(c.mul(images, c.div(height, 2)), _ROWS)


@contextmanager
def maximum(
    c: Code, arguments: list[Buffer], results: list[Buffer], *, size: int
) -> Iterator[Callable[[Int], None]]:
    """Pools: x `[B, H, W, C]` -> `[B, H / 2, W / 2, C]`; H and W are even.

    A window with NaN is NaN.
    """
    (x,), (y,) = arguments, results

    def emit(corners, out, channel, mask):
        values = [c.load(corner, channel, mask, size) for corner in corners]
        c.store(reduce(partial(_greater, c), values), out, channel, mask, size)

    yield _rows(c, [x], y, size, emit)


@contextmanager
def to_first_maximum(
    c: Code, arguments: list[Buffer], results: list[Buffer], *, size: int
) -> Iterator[Callable[[Int], None]]:
    """Computes the gradient: x `[B, H, W, C]`, g `[B, H / 2, W / 2, C]` -> as x.

    The first maximum of a window gets all of it, no pixel of one with NaN any.
    """
    (x, g), (dx,) = arguments, results
    b = c.b

    def emit(corners, targets, pooled, channel, mask):
        values = [c.load(corner, channel, mask, size) for corner in corners]
        given = c.load(pooled, channel, mask, size)
        greatest, is_greater = values[0], []
        for value in values[1:]:
            is_greater.append(b.fcmp_ordered(">", value, greatest))
            greatest = _greater(c, greatest, value)
        is_last = b.fcmp_ordered("ord", greatest, greatest)  # of those from here on
        for target, taken in zip(
            reversed(targets), [*reversed(is_greater), None], strict=True
        ):
            here = is_last if taken is None else b.and_(is_last, taken)
            part = b.select(here, given, c.zero())
            c.store(part, target, channel, mask, size)
            if taken is not None:
                is_last = b.and_(is_last, b.not_(taken))

    yield _rows(c, [x, dx], g, size, emit)


def _greater(c: Code, a: Any, b: Any) -> Any:
    """Returns the greater, or NaN if either is."""
    takes_b = c.b.or_(c.b.fcmp_ordered(">", b, a), c.b.fcmp_unordered("uno", b, b))
    return c.b.select(takes_b, b, a)


def _rows(
    c: Code,
    whole: list[Buffer],
    pooled: Buffer,
    size: int,
    emit: Callable[..., None],
) -> Callable[[Int], None]:
    """Returns what emits a piece: some rows of windows.

    Args:
        c: where it is emitted.
        whole: arrays `[B, H, W, C]`.
        pooled: `[B, H / 2, W / 2, C]`.
        size: bytes of an element.
        emit: emits a vector of a window: the addresses of its pixels, for each of
            `whole`, and of it in `pooled`, the channel, and a mask.
    """
    images, height, width, channels = whole[0].dims
    high, wide = c.div(height, 2), c.div(width, 2)
    all_rows = c.mul(images, high)

    def piece(index):
        first = c.mul(index, _ROWS)
        last = c.min(c.add(first, _ROWS), all_rows)
        with c.loop(last, start=first) as over_rows, c.loop(wide) as over_windows:
            row, window = over_rows.index, over_windows.index
            corners = [
                c.add(c.mul(c.add(c.mul(2, row), i), width), c.mul(2, window), j)
                for i in range(2)
                for j in range(2)
            ]
            corners = [c.mul(corner, channels) for corner in corners]
            addresses = [[c.at(a.data, i, size) for i in corners] for a in whole]
            place = c.add(c.mul(row, wide), window)
            here = c.at(pooled.data, c.mul(place, channels), size)
            with c.loop(channels, step=c.lanes) as over_channels:
                channel = over_channels.index
                c.with_tail(
                    c.sub(channels, channel), partial(emit, *addresses, here, channel)
                )

    return piece
