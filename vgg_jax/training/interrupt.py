"""Stopping a run from outside: SIGINT, SIGTERM and, when the terminal goes, SIGHUP."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator

from vgg_jax import processes
from vgg_jax.errors import RunError


class Stopped(RunError):
    """A signal ended the run; its state is saved."""

    label = "stopped"
    shared = True

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class Interrupt:
    """Notes the first SIGINT, SIGTERM or SIGHUP; ignored ones (`nohup`) stay so.

    A second signal, at least one second later, has its default effect. An earlier one
    is the same wish: a service manager signals every process of a group, and a parent
    passes the signal on.

    Use as a context manager around the work, and ask the instance (`if interrupt():`)
    wherever the work can stop. `signal` is the number of the signal, or 0.

    Args:
        agreed: called with the number of the signal, or 0, whenever asked; returns the
            one that all processes agree on (`processes.Agreement`).
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, agreed: Callable[[int], int] = lambda signal: signal) -> None:
        self.signal = 0
        self._agreed, self._heard, self._at = agreed, 0, 0.0

    def __call__(self) -> bool:
        if not self.signal:
            self.signal = self._agreed(self._heard)
        return self.signal != 0

    def until_heard[Item](self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields items; where they fail by a signal (`is_cause`), that is their end."""
        try:
            yield from items
        except Exception:
            if not self.is_cause:
                raise

    @property
    def is_cause(self) -> bool:
        """Whether a failure may be a signal's doing, after which the run is saved.

        One to a group of processes ends those that decode, too. Of several processes
        that train together the others would wait for this one: it has to fail there.
        """
        return bool(self._heard) and processes.count() == 1

    def __enter__(self) -> "Interrupt":
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        heard = [s for s in self._SIGNALS if not (s == signal.SIGHUP and ignored)]
        self._old = {s: signal.signal(s, self._note) for s in heard}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number, frame):
        del frame
        if not self._heard:
            self._heard, self._at = number, time.monotonic()
        elif time.monotonic() - self._at >= 1:
            self._restore()
            signal.raise_signal(number)

    def _restore(self):
        for number, handler in self._old.items():
            signal.signal(number, handler)
