"""Standard output and error that cannot end a program."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any


class Lasting:
    """A text stream whose writing never fails.

    Where nobody reads any more (`| head -1`), or the disk behind it is full, what is
    written goes nowhere from then on; hours of training do not end for that.

    Args:
        stream: standard output or error; letters that its encoding lacks become `?`.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        with contextlib.suppress(AttributeError, OSError):
            stream.reconfigure(errors="replace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text, or not."""
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or not."""
        with self._lasting():
            self._stream.flush()

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere, closed = os.open(os.devnull, os.O_WRONLY), self._stream.fileno()
            if nowhere != closed:
                os.dup2(nowhere, closed)  # for what is buffered still, too
                os.close(nowhere)
            if error.errno != errno.EPIPE and self._stream is not sys.__stderr__:
                print(
                    f"output cannot be written ({error.strerror}): going on without it",
                    file=sys.stderr,
                )


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Makes standard output and error `Lasting`; a closed one goes nowhere."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file that is opened would become it
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (s and Lasting(s) for s in before)  # pyright: ignore
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = before
