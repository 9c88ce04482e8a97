"""What a process sees of the others: whether they are there, and why one is not.

XLA's collectives wait for a process that hangs, for minutes or for ever, and JAX's own
service ends processes with a stack trace. So each process shows a sign of life, looks
at those of the others, and ends with a line where one is missing.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

PREFIX = "vgg_jax/"  # of our keys at the coordinator
_BEAT = 1.0  # seconds between signs of life
_SILENT = 20.0  # seconds without one after which a process is given up
_STUCK = 600.0  # seconds that the others wait for one that lives and makes no step
_GRACE = 20.0  # seconds in which a process ends by itself, saving what it can
_RESUMES = "what was saved stays: start all of them again with the same commands"


class Watch:
    """Shows that this process lives, and looks at the others, in a thread of its own.

    Once one of them is missing, `why` says it; a process that does not `close` within
    the 20 seconds after, because it waits in a collective, is ended with that line.

    Args:
        client: of JAX's coordination service.
        index: of this process.
        number: of processes.
        steps: returns how far this process is; the same in all when they are level.
        silent, stuck: seconds; see above.
    """

    def __init__(
        self,
        client: Any,
        index: int,
        number: int,
        steps: Callable[[], int],
        *,
        silent: float = _SILENT,
        stuck: float = _STUCK,
    ) -> None:
        self._client, self._index, self._number = client, index, number
        self._steps, self._silent, self._stuck = steps, silent, stuck
        self._seen: dict[int, tuple[str, float]] = {}  # last sign of life, and when
        self._level = (0, time.monotonic())  # our own steps, and since when
        self._reason, self._found = "", threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def why(self) -> str:
        """Returns why this process cannot go on, once that is known; "" if it can.

        Waits as long as it takes to see that another one is silent.
        """
        self._found.wait(self._silent + 3 * _BEAT)
        return self._reason

    def tell(self, message: str) -> None:
        """Tells the others that this process fails, and why, and lets them end."""
        with contextlib.suppress(Exception):  # the coordinator may be gone
            self._client.key_value_set(f"{PREFIX}failed/{self._index}", message)
        self.go()

    def leave(self, seconds: float) -> None:
        """Returns when all processes are here, or raises what JAX does if they fail."""
        self._client.wait_at_barrier(f"{PREFIX}leave", int(1000 * seconds))

    def go(self) -> None:
        """Says that this process goes; the first, who coordinates, goes last."""
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{PREFIX}left/{self._index}", "")
            last = time.monotonic() + _GRACE + 3 * _BEAT
            while self._index == 0 and time.monotonic() < last:
                gone = {0, *self._silent_ones(), *(i for i, _ in self._all("left"))}
                if len(gone) == self._number:
                    break
                time.sleep(_BEAT)

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        beats, given_up = 0, float("inf")
        while not self._closed.wait(_BEAT):
            beats += 1
            with contextlib.suppress(Exception):  # JAX's own client ends us then
                self._show(beats)
                if not self._reason and (reason := self._missing()):
                    self._reason = f"{reason}; {_RESUMES}"
                    given_up = time.monotonic() + _GRACE
                    self._found.set()
            if time.monotonic() > given_up:
                self.go()
                _end(self._reason)

    def _show(self, beats: int) -> None:
        """Shows a sign of life, and notes those of the others."""
        sign = f"{beats} {self._steps()} {socket.gethostname()}"
        key = f"{PREFIX}alive/{self._index}"
        self._client.key_value_set(key, sign, allow_overwrite=True)
        now = time.monotonic()
        for i, sign in self._all("alive"):
            if self._seen.get(i, ("", 0.0))[0] != sign:
                self._seen[i] = sign, now
        if self._level[0] != self._steps():
            self._level = self._steps(), now

    def _all(self, kind: str) -> list[tuple[int, str]]:
        pairs = self._client.key_value_dir_get(f"{PREFIX}{kind}/")
        return sorted((int(key.rpartition("/")[2]), value) for key, value in pairs)

    def _missing(self) -> str:
        """Returns which process has failed, is silent or hangs, if one does."""
        for i, message in self._all("failed"):
            if i != self._index:
                return f"{self._name(i)} failed: {message}"
        for i in self._silent_ones():
            return (
                f"{self._name(i)} has given no sign of life for {self._silent:.0f} "
                "seconds: it was killed, or its machine or the network is gone"
            )
        steps, since = self._level
        if time.monotonic() - since > self._stuck:
            for i, (sign, _) in self._seen.items():
                if int(sign.split()[1]) < steps:
                    return (
                        f"{self._name(i)} has made no step for {self._stuck:.0f} "
                        "seconds, and the others wait for it"
                    )
        return ""

    def _silent_ones(self) -> list[int]:
        now = time.monotonic()
        return [i for i, (_, at) in self._seen.items() if now - at > self._silent]

    def _name(self, index: int) -> str:
        sign, _ = self._seen.get(index, ("", 0.0))
        return f"process {index} ({sign.split()[-1]})" if sign else f"process {index}"


def _end(reason: str) -> None:
    """Ends this process, whatever its threads wait for."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


@contextlib.contextmanager
def say_when_aborted(line: Callable[[], str]) -> Iterator[None]:
    """Ends with a line where JAX's client aborts this process, as it does on failures.

    Args:
        line: returns it; "" where something else must have been the cause.
    """

    def said(number: int) -> None:
        del number
        if text := line():
            _end(text)

    libc, kind = ctypes.CDLL(None), ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = kind(said)  # kept alive as long as it is installed
    libc.signal(signal.SIGABRT, handler)
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, ctypes.c_void_p(int(signal.SIG_DFL)))
        del handler


def first_is_gone(address: str) -> str:
    """Returns a line that says so, where nobody answers at "host:port"; "" else."""
    try:
        socket.create_connection(parts_of(address), timeout=2).close()
    except OSError:
        return f"process 0, at {address}, which keeps the run, is gone; {_RESUMES}"
    return ""


def parts_of(address: str) -> tuple[str, int]:
    """Returns host and port of an address.

    >>> parts_of("[::1]:9999")
    ('::1', 9999)
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
