"""A process sees that another one fails, is silent, or hangs; at JAX's own service."""

import socket
import threading
import time

import pytest
from jax._src.lib import _jax

from vgg_jax import watch
from vgg_jax.watch import Watch


@pytest.fixture
def clients():
    """Two clients of a coordinator, as two processes have them."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    service = _jax.get_distributed_runtime_service(f"[::]:{port}", 2)
    both = [
        _jax.get_distributed_runtime_client(f"localhost:{port}", i) for i in range(2)
    ]
    together(*(client.connect for client in both))
    yield both
    together(*(client.shutdown for client in both))
    service.shutdown()


def together(*calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(watch, "_BEAT", 0.05)


def watches(clients, steps=(0, 0), **seconds):
    seconds = {"silent": 1.0, "stuck": 60.0} | seconds
    both = [
        Watch(client, i, 2, lambda i=i: steps[i], **seconds)
        for i, client in enumerate(clients)
    ]
    for one in both:
        one.start()
    return both


def test_nothing_is_wrong_while_both_live(clients, quick):
    first, second = watches(clients)
    time.sleep(1.5)  # longer than one may be silent
    together(lambda: first.leave(5), lambda: second.leave(5))
    first.close(), second.close()
    assert not first._reason and not second._reason


def test_a_failure_is_told_with_its_message(clients, quick):
    first, second = watches(clients)
    time.sleep(0.3)
    second.tell("the data is not here")
    reason = first.why()
    first.close(), second.close()
    assert reason.startswith("process 1 (") and socket.gethostname() in reason
    assert "failed: the data is not here; what was saved stays" in reason
    assert not second._reason


def test_a_silent_process_is_named(clients, quick):
    first, second = watches(clients)
    time.sleep(0.3)
    second.close()
    began = time.monotonic()
    reason = first.why()
    first.close()
    assert "process 1 (" in reason and "no sign of life for 1 seconds" in reason
    assert 0.5 < time.monotonic() - began < 2


@pytest.mark.parametrize("steps, hangs", [((7, 3), True), ((7, 7), False)])
def test_one_that_lives_and_stays_behind(clients, quick, steps, hangs):
    """Where both are level, both wait for something else, a report, say."""
    first, second = watches(clients, steps, stuck=0.5)
    time.sleep(1.2)
    first.close(), second.close()
    assert ("has made no step for 0 seconds" in first._reason) == hangs
    assert not second._reason


def test_the_first_leaves_last(clients, quick):
    """The others' connection goes with it."""
    first, second = watches(clients)
    ended = []
    go = lambda one: (one.go(), ended.append(one))
    late = threading.Timer(0.5, go, [second])
    late.start()
    go(first)
    late.join()
    first.close(), second.close()
    assert ended == [second, first]
