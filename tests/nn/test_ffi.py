"""Handlers, called as XLA calls them, by an XLA that lacks something.

The structures are those of `xla/ffi/api/c_api.h`, read here by their offsets.
"""

import contextlib
import ctypes

import numpy as np
import pytest

from vgg_jax import machine

pytestmark = pytest.mark.skipif(not machine.kernel_kind(), reason="no llvmlite here")

PIECES = 9
# Of XLA_FFI_Api: what a handler asks for.
SCHEDULE, THREADS, CREATE_FUTURE, SET_FUTURE, DESTROY_ERROR = 136, 144, 152, 160, 64
Function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


@contextlib.contextmanager
def body(c, arguments, results):
    """A piece writes its number, and one more."""
    del arguments
    yield lambda index: c.write(c.add(index, 1), c.at(results[0].data, index, 8), 0)


@pytest.fixture(scope="module")
def handler():
    from vgg_jax.nn import ffi, machine_code

    pieces = lambda c, arguments, results: results[0].dims[0]
    emitted = lambda: ffi.handler("numbers", 8, ([], [1]), pieces, body)
    engine = machine_code.loaded("numbers", emitted, "")
    yield Function(engine.get_function_address("numbers"))


class Xla:
    """Fails where it is told to, and counts errors and futures."""

    def __init__(self, fails):
        self.fails, self.errors, self.destroyed, self.available = fails, 0, [], []
        answers = {
            SCHEDULE: lambda words: self.run(words[3], words[4]),
            THREADS: lambda words: ctypes.memmove(
                words[3], ctypes.byref(ctypes.c_int64(4)), 8
            ),
            CREATE_FUTURE: lambda words: words.__setitem__(2, 77),
            SET_FUTURE: lambda words: self.available.append(words[2]),
            DESTROY_ERROR: lambda words: self.destroyed.append(words[2]),
        }
        self.functions = {
            what: Function(self.answering(what, answer))
            for what, answer in answers.items()
        }
        self.table = (ctypes.c_uint64 * 32)()
        for what, function in self.functions.items():
            self.table[what // 8] = ctypes.cast(function, ctypes.c_void_p).value

    def answering(self, what, answer):
        def called(address):
            words = (ctypes.c_uint64 * 6).from_address(address)
            if what in self.fails:
                self.errors += 1
                return 1000 + self.errors
            answer(words)
            return None

        return called

    def run(self, task, data):
        Function(task)(data)


@pytest.mark.parametrize(
    "fails",
    [(), (THREADS,), (CREATE_FUTURE,), (SCHEDULE,), (THREADS, CREATE_FUTURE)],
    ids=str,
)
def test_all_is_done_and_no_error_is_left(fails, handler):
    xla, out = Xla(fails), np.zeros(PIECES, np.int64)
    dims = (ctypes.c_int64 * 1)(PIECES)
    buffer = (ctypes.c_uint64 * 6)()
    buffer[3], buffer[5] = out.ctypes.data, ctypes.addressof(dims)
    results = (ctypes.c_uint64 * 1)(ctypes.addressof(buffer))
    frame = (ctypes.c_uint64 * 24)()
    frame[2], frame[14] = ctypes.addressof(xla.table), ctypes.addressof(results)
    assert handler(ctypes.addressof(frame)) is None
    assert out.tolist() == [*range(1, PIECES + 1)]
    assert len(xla.destroyed) == len(set(xla.destroyed)) == xla.errors
    has_future = not {THREADS, CREATE_FUTURE} & {*fails}
    assert xla.available == [77] * has_future
    assert frame[21] == 77 * has_future
