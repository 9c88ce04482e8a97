"""The first signal is noted; one right after it is the same wish; a later one acts."""

import signal
import time

import pytest

from vgg_jax.training.interrupt import Interrupt


def test_signals(monkeypatch):
    with Interrupt() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop() and stop.signal == signal.SIGTERM
        later = time.monotonic() + 1.5
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
