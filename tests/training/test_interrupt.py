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


def test_the_terminal_goes_away():
    """Under `nohup`, as these tests may be, it may."""
    old = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with Interrupt() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop() and stop.signal == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Interrupt() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def failing():
    yield 1
    signal.raise_signal(signal.SIGTERM)
    raise RuntimeError("a process that decodes was terminated")


def test_a_signal_that_ends_the_data_too_is_no_error(monkeypatch):
    with Interrupt() as stop:
        assert [*stop.until_heard(failing())] == [1] and stop()
    with Interrupt() as stop:
        monkeypatch.setattr("vgg_jax.processes.count", lambda: 2)  # others would wait
        with pytest.raises(RuntimeError, match="terminated"):
            [*stop.until_heard(failing())]


def test_another_failure_of_the_data_is_one():
    with Interrupt() as stop, pytest.raises(ZeroDivisionError):
        [*stop.until_heard(1 // i for i in (1, 0))]
