"""Functions emitted by `llvm.py` that XLA:CPU calls, on its own threads.

XLA calls foreign functions by an interface in C, `xla/ffi/api/c_api.h` (jaxlib has it):
its structures are read here by their offsets, which XLA promises to keep for a year
after it changes them. Ours are of its version 0.5.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
from llvmlite import ir

from vgg_jax.nn import machine_code
from vgg_jax.nn.llvm import I32, I64, NULL, POINTER, VOID, Code, Int

_VERSION = 0, 5
# Offsets in bytes, of XLA_FFI_CallFrame ...
_EXTENSION, _API, _CONTEXT, _ARGUMENTS, _RESULTS, _FUTURE_OUT = 8, 16, 24, 72, 112, 168
# ... of XLA_FFI_Buffer, of XLA_FFI_Api ...
_DATA, _DIMS = 24, 40
_DESTROY_ERROR = 64
_SCHEDULE, _THREADS, _CREATE_FUTURE, _SET_FUTURE = 136, 144, 152, 160
# ... and of XLA_FFI_Metadata_Extension and XLA_FFI_Metadata.
_KIND, _METADATA = 8, 24
_MAJOR, _MINOR, _TRAITS = 24, 28, 32
_IS_METADATA = 1

# What the threads of one call share, in words of 8 bytes; then the buffers.
_NEXT, _DONE, _OWNERS, _PIECES, _SET, _FUTURE, _BUFFERS = range(7)


class Buffer(NamedTuple):
    """An array that XLA passes.

    Attributes:
        data: its address.
        dims: sizes of its axes.
    """

    data: Any
    dims: Sequence[Int]


Emitter = Callable[..., Any]


def handler(
    name: str,
    lanes: int,
    ranks: tuple[Sequence[int], Sequence[int]],
    pieces: Callable[[Code, list[Buffer], list[Buffer]], Int],
    body: Callable[
        [Code, list[Buffer], list[Buffer]],
        AbstractContextManager[Callable[[Int], None]],
    ],
) -> ir.Module:
    """Returns a module of one function for XLA to call, of independent pieces.

    The thread that XLA calls it on takes pieces until none is left; so do others of
    XLA's, as they become free. Whichever ends the last one tells XLA, which goes on
    with what does not need the result meanwhile. No thread waits for another.

    Args:
        name: of the module, and of the function.
        lanes: floats of a vector.
        ranks: number of axes of each argument, and of each result.
        pieces: emits the number of pieces.
        body: emits what each thread does before and after its pieces, and yields what
            emits a piece.
    """
    module = ir.Module(name)
    worker = ir.Function(module, ir.FunctionType(VOID, [POINTER]), f"{name}_worker")
    worker.linkage = "internal"
    _emit_worker(worker, lanes, ranks, body)
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), name)
    _emit_call(function, worker, lanes, ranks, pieces)
    return module


def register(name: str, emitted: Callable[[], ir.Module], sources: str) -> None:
    """Tells XLA:CPU of a handler.

    Args:
        name: of it, and of its module.
        emitted: returns the module, if its code is not kept from an earlier start.
        sources: as of `machine_code.loaded`.
    """
    engine = machine_code.loaded(name, emitted, sources)
    _engines.append(engine)
    function = ctypes.CFUNCTYPE(ctypes.c_void_p)(engine.get_function_address(name))
    with _telling:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")


_engines = []  # which have the code that XLA was told of
_telling = threading.Lock()  # `pycapsule` sets the types of a function that all share


def _start(function: ir.Function, lanes: int) -> tuple[Code, Any]:
    (argument,) = function.args
    return Code(ir.IRBuilder(function.append_basic_block("entry")), lanes), argument


def _words(ranks) -> Iterator[tuple[int, int, int, int]]:
    """Yields (whether a result, index, rank, first word) of each buffer."""
    word = _BUFFERS
    for is_result, of_kind in enumerate(ranks):
        for i, rank in enumerate(of_kind):
            yield is_result, i, rank, word
            word += 1 + rank


def _emit_call(function, worker, lanes, ranks, pieces):
    c, frame = _start(function, lanes)
    b = c.b
    _answer_if_asked(c, frame)
    words = _BUFFERS + sum(1 + rank for of_kind in ranks for rank in of_kind)
    (task,) = c.arrays([2 * words])
    buffers = [], []
    for is_result, i, rank, word in _words(ranks):
        array = c.read(frame, _RESULTS if is_result else _ARGUMENTS, POINTER)
        buffer = c.read(array, 8 * i, POINTER)
        sizes = c.read(buffer, _DIMS, POINTER)
        dims = [c.read(sizes, 8 * axis) for axis in range(rank)]
        data = c.read(buffer, _DATA, POINTER)
        buffers[is_result].append(Buffer(data, dims))
        for offset, value in enumerate((data, *dims)):
            c.write(value, task, 8 * (word + offset))
    count = c.value(pieces(c, *buffers))
    api, context = c.read(frame, _API, POINTER), c.read(frame, _CONTEXT, POINTER)
    room = c.room(5)

    def ask(what, *arguments):
        """Calls a function of XLA's, and emits whether it succeeded."""
        for i, value in enumerate((8 * (2 + len(arguments)), 0, *arguments)):
            c.write(value, room, 8 * i)
        error = c.call_pointer(c.read(api, what, POINTER), room)
        succeeds = b.icmp_unsigned("==", error, NULL)
        with b.if_then(b.not_(succeeds)):
            for i, value in enumerate((24, 0, error)):
                c.write(value, room, 8 * i)
            c.call_pointer(c.read(api, _DESTROY_ERROR, POINTER), room)
        return succeeds

    threads = c.room(1)
    c.write(1, threads, 0)
    ask(_THREADS, context, threads)
    helpers = c.beyond(c.min(c.read(threads, 0), count), 1)
    c.write(0, task, 8 * _NEXT)
    c.write(0, task, 8 * _DONE)
    c.write(c.add(helpers, 1), task, 8 * _OWNERS)
    c.write(count, task, 8 * _PIECES)
    c.write(c.read(api, _SET_FUTURE, POINTER), task, 8 * _SET)
    c.write(NULL, task, 8 * _FUTURE)
    with b.if_then(c.less(0, helpers)):
        has_future = ask(_CREATE_FUTURE, 0)
        future = b.select(has_future, c.read(room, 16, POINTER), NULL)
        c.write(future, task, 8 * _FUTURE)
        c.write(future, frame, _FUTURE_OUT)
        with c.loop(helpers):
            # Where XLA has no help to give, this thread does all.
            with b.if_else(has_future) as (with_help, alone):
                with with_help:
                    is_scheduled = ask(_SCHEDULE, context, worker, task)
                    with b.if_then(b.not_(is_scheduled)):
                        _leave(c, task)
                with alone:
                    _leave(c, task)
    b.call(worker, [task])
    b.ret(NULL)


def _leave(c: Code, task) -> None:
    """Emits that a thread needs the task no longer; the last one frees it."""
    one = c.value(1)
    owners = c.b.atomic_rmw("sub", c.at(task, _OWNERS, 8), one, "acq_rel")
    with c.b.if_then(c.b.icmp_unsigned("==", owners, one)):
        c.free(task)


def _answer_if_asked(c: Code, frame) -> None:
    """Emits the answer to XLA's question, at registration, by which version this is."""
    b = c.b
    extension = c.read(frame, _EXTENSION, POINTER)
    with b.if_then(b.icmp_unsigned("!=", extension, NULL)):
        kind = c.read(extension, _KIND, I32)
        with b.if_then(b.icmp_unsigned("==", kind, ir.Constant(I32, _IS_METADATA))):
            metadata = c.read(extension, _METADATA, POINTER)
            for offset, number in zip((_MAJOR, _MINOR), _VERSION, strict=True):
                c.write(ir.Constant(I32, number), metadata, offset)
            c.write(ir.Constant(I32, 0), metadata, _TRAITS)
            b.ret(NULL)


def _emit_worker(function, lanes, ranks, body):
    c, task = _start(function, lanes)
    b = c.b
    buffers = [], []
    for is_result, _, rank, word in _words(ranks):
        dims = [c.read(task, 8 * (word + 1 + axis)) for axis in range(rank)]
        data = c.read(task, 8 * word, POINTER)
        buffers[is_result].append(Buffer(data, dims))
    count, one, room = c.read(task, 8 * _PIECES), c.value(1), c.room(3)
    begin, head, run, end, leave = (
        b.append_basic_block(name) for name in ("begin", "head", "run", "end", "leave")
    )
    # A thread that comes when no piece is left makes nothing for one.
    next_piece = b.load_atomic(c.at(task, _NEXT, 8), "monotonic", 8, typ=I64)
    b.cbranch(c.less(next_piece, count), begin, leave)
    b.position_at_end(begin)
    with body(c, *buffers) as piece:
        b.branch(head)
        b.position_at_end(head)
        index = b.atomic_rmw("add", c.at(task, _NEXT, 8), one, "monotonic")
        b.cbranch(c.less(index, count), run, end)
        b.position_at_end(run)
        piece(index)
        future = c.read(task, 8 * _FUTURE, POINTER)
        done = b.atomic_rmw("add", c.at(task, _DONE, 8), one, "acq_rel")
        is_last = b.icmp_unsigned("==", done, c.sub(count, 1))
        is_awaited = b.icmp_unsigned("!=", future, NULL)
        with b.if_then(b.and_(is_last, is_awaited)):
            for i, value in enumerate((24, 0, future)):
                c.write(value, room, 8 * i)
            c.call_pointer(c.read(task, 8 * _SET, POINTER), room)
        b.branch(head)
        b.position_at_end(end)
    b.branch(leave)
    b.position_at_end(leave)
    _leave(c, task)
    b.ret_void()
