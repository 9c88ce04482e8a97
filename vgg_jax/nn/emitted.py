"""Kernels of our own, each emitted and compiled once: when asked for, or before."""

import contextlib
import functools
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import DTypeLike

from vgg_jax import machine

if TYPE_CHECKING:
    from vgg_jax.nn.algorithms import Algorithm, Registers


# Pieces at least, where there is enough to do. Not as many as this machine has cores:
# sums over them would have other bits elsewhere.
GROUPS = 16


def _sources() -> str:
    """Returns a digest of this package's sources; "" where they are no files."""
    digest = hashlib.sha256()
    try:
        paths = sorted(Path(__file__).parent.glob("*.py"))
        for path in paths:
            digest.update(path.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest() if paths else ""


_SOURCES = _sources()  # as they are imported


def registers() -> "Registers":
    """Returns the layout of products that this CPU's kernels have."""
    from vgg_jax.nn import algorithms

    return algorithms.REGISTERS[machine.kernel_kind()]


def call(
    what: str,
    algorithm: "Algorithm | None",
    option: int,
    shape: Sequence[int],
    dtype: DTypeLike,
    *arguments: jax.Array | np.ndarray,
    layout: "Registers | None" = None,
) -> jax.Array:
    """Returns what a kernel computes of arrays: of some shape and type.

    Args:
        what: one of `_kernel_table`.
        algorithm: of a convolution.
        option: the bytes of an element; of kernels, whether they are flipped; of a
            product of matrices, whether the second is transposed.
        shape: of the result.
        dtype: of the result.
        *arguments: what it reads.
        layout: of products over registers; None: `registers`.
    """
    name = _registered(what, layout or registers(), algorithm, option)
    kernel = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(tuple(shape), dtype))
    return kernel(*arguments)


def number(count: int) -> np.ndarray:
    """Returns a number as an argument of a kernel.

    It is the length of an array of nothing: XLA has nothing to compile or to compute.
    """
    return np.zeros((count, 0), np.int8)


@contextlib.contextmanager
def meanwhile() -> Iterator[None]:
    """Compiles kernels that are asked for inside on threads, and waits at the end.

    A program can be lowered inside, which needs their names alone, but not compiled.
    """
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="kernels") as pool:
        _here.pool, _here.asked = pool, {}
        try:
            yield
        finally:
            asked = _here.asked
            del _here.pool, _here.asked
    for kernel in asked.values():
        kernel.result()


def begin(kinds: Iterable[tuple]) -> None:
    """Has a thread compile kernels that will be asked for, unless the program ends.

    Args:
        kinds: what, layout, algorithm and option of each, as for `call`.
    """

    def compile_() -> None:
        for kind in kinds:
            if not threading.main_thread().is_alive():
                return
            with contextlib.suppress(Exception):  # who asks for it meets it again
                _loaded(*kind)

    threading.Thread(target=compile_, name="kernels").start()


_here = threading.local()  # pool, and what was asked of it; absent: in this thread
_registering = threading.Lock()
_locks: dict[tuple, threading.Lock] = {}  # of each kernel: XLA takes a name once


def _registered(*kind: Any) -> str:
    """Returns the name by which XLA knows a kernel, or will after `meanwhile`."""
    if pool := getattr(_here, "pool", None):
        if kind not in _here.asked:
            _here.asked[kind] = pool.submit(_loaded, *kind)
    else:
        _loaded(*kind)
    return _name(*kind)


def _loaded(*kind: Any) -> None:
    with _registering:
        lock = _locks.setdefault(kind, threading.Lock())
    with lock:
        _load(*kind)


def _name(
    what: str, layout: "Registers", algorithm: "Algorithm | None", option: int
) -> str:
    shape = layout.lanes, layout.rows, layout.vectors, layout.depth
    parts = "vgg_jax", what, algorithm.name if algorithm else "", option, *shape
    return "_".join(str(part) for part in parts if part != "")


@functools.cache
def _load(
    what: str, layout: "Registers", algorithm: "Algorithm | None", option: int
) -> None:
    """Loads a kernel, once, and tells XLA.

    Args:
        what: one of `_kernel_table`.
        layout: what it is made for.
        algorithm: of a convolution.
        option: the bytes of an element; of kernels, whether they are flipped; of a
            product of matrices, whether the second is transposed.
    """
    from vgg_jax.nn import ffi

    kernel = _kernel_table(layout, algorithm, option)[what]
    name = _name(what, layout, algorithm, option)

    # All that emits it is imported by now. Where a source was edited since the first
    # was, what is in memory is of neither version: nothing is kept or taken.
    sources = _SOURCES if _sources() == _SOURCES else ""
    ffi.register(name, lambda: ffi.handler(name, layout.lanes, *kernel), sources)


def _kernel_table(layout, algorithm, option):
    """Returns (numbers of axes, number of pieces, what a piece is) by name."""
    from vgg_jax.nn import (
        direct_kernel,
        matmul_kernel,
        sums,
        tile_convolution,
        tile_gradient,
        tile_kernels,
        windows,
    )

    of = functools.partial
    both = {"algorithm": algorithm, "registers": layout}
    first_of_result = lambda _, __, results: results[0].dims[0]
    return {
        "kernels": (
            ([4], [4]),
            first_of_result,
            of(tile_kernels.kernels, flipped=bool(option), **both),
        ),
        "convolve": (
            ([4, 4, 1, 2], [4]),
            of(tile_convolution.convolve_pieces, **both),
            of(tile_convolution.convolve, size=option, **both),
        ),
        "convolve_direct": (
            ([4, 5, 1, 2], [4]),
            direct_kernel.pieces,
            of(direct_kernel.convolve, registers=layout, size=option),
        ),
        "matmul": (
            ([3, 2, 2, 2], [2]),
            matmul_kernel.pieces,
            of(matmul_kernel.multiply, registers=layout, transposed=bool(option)),
        ),
        "by_kernel": (
            ([4, 4], [4]),
            of(tile_gradient.by_kernel_pieces, **both),
            of(tile_gradient.by_kernel, size=option, **both),
        ),
        "sum": (([2], [2]), first_of_result, of(sums.over_pixels, size=option)),
        "sum_with_product": (
            ([2, 2], [3]),
            first_of_result,
            of(sums.over_pixels, size=option),
        ),
        "max_pool": (([4], [4]), windows.pieces, of(windows.maximum, size=option)),
        "to_first_maximum": (
            ([4, 4], [4]),
            windows.pieces,
            of(windows.to_first_maximum, size=option),
        ),
    }
