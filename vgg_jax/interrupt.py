"""Stopping a run from outside: SIGINT and SIGTERM."""

import signal


class Interrupt:
    """Notes the first SIGINT or SIGTERM; a second one acts as usual.

    Use as a context manager around the work, and ask the instance (`if interrupt():`)
    wherever the work can stop. `signal` is the signal's number, or 0.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> "Interrupt":
        self._old = {s: signal.signal(s, self._note) for s in self._SIGNALS}
        return self

    def __exit__(self, *_):
        self._restore()

    def _note(self, number, frame):
        del frame
        self.signal = number
        self._restore()

    def _restore(self):
        for number, handler in self._old.items():
            signal.signal(number, handler)
