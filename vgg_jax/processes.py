"""The processes that compute a run together, on one machine or on many.

The first of them keeps the run: it alone reads and writes the workdir, and says how it
goes. What they tell one another outside of programs goes through JAX's coordination
service (`jax.distributed`); inside, the devices of all are one mesh.
"""

import atexit
import contextlib
import itertools
import json
import os
import re
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # what it tells has no public name
from jax.sharding import Mesh

from vgg_jax.errors import ConfigError, RunError, UserError
from vgg_jax.mesh import over, spread, whole
from vgg_jax.watch import (
    PREFIX,
    Watch,
    first_is_gone,
    parts_of,
    say_when_aborted,
)

DETECTED = "auto"  # a coordinator that JAX finds by itself
_PORTS = 2**16  # of a machine
_JOIN = 300  # seconds that processes wait for one another to start
_END = 24 * 3600  # ... to end: the first writes its report
_ASK = 1_000  # milliseconds that one question to the coordinator may take

_questions = itertools.count()  # asked alike in all processes


def count() -> int:
    """Returns the number of processes."""
    return jax.process_count()


def index() -> int:
    """Returns which process this is, from 0."""
    return jax.process_index()


def is_first() -> bool:
    """Returns whether this process keeps the run; true where it is the only one."""
    return jax.process_index() == 0


def told[T](say: Callable[[], T]) -> T:
    """Returns in all processes what the first one finds.

    Args:
        say: called in the first process; returns what JSON can hold.

    >>> told(lambda: {"epochs": 3})
    {'epochs': 3}
    """
    if count() == 1:
        return say()
    client: Any = distributed.global_state.client
    key = f"{PREFIX}told/{next(_questions)}"
    if is_first():
        client.key_value_set(key, json.dumps(say()))
    while True:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # not said yet
            return json.loads(client.blocking_key_value_get(key, _ASK))
        time.sleep(0.1)


def in_turn[T](call: Callable[[], T]) -> T:
    """Calls in the first process, and when that is through, in all others.

    So that what the first one downloads, say, is there for those that share its disk.
    """
    if is_first():
        result = call()
        told(lambda: None)
        return result
    told(lambda: None)
    return call()


def meet() -> None:
    """Returns when all processes are here, however long some of them take.

    Before a program of all devices: Gloo gives up where one comes 30 seconds later.
    """
    if count() > 1:
        client: Any = distributed.global_state.client
        client.wait_at_barrier(f"{PREFIX}meet/{next(_questions)}", 1_000 * _END)


class Agreement:
    """The largest number that a process says, as all of them hear it.

    All processes call it equally often, and hear the same. It is a program of all
    devices like a training step, and waits in line with those.

    Args:
        mesh: all devices.
        delay: number of calls after which a number is heard, so that a call need not
            wait for the programs before it.

    >>> from vgg_jax.mesh import over
    >>> agreed = Agreement(over(1), delay=1)
    >>> agreed(2), agreed(0), agreed(0)
    (0, 2, 0)
    """

    calls = 0  # of all in this process

    def __init__(self, mesh: Mesh, delay: int = 0) -> None:
        self._mesh, self._delay = mesh, delay
        self._largest = jax.jit(jax.numpy.max, out_shardings=whole(mesh))
        self._under_way: deque[jax.Array] = deque()

    def __call__(self, number: int) -> int:
        """Returns the largest number of the call that was made `delay` calls before."""
        Agreement.calls += 1
        own = np.full(len(self._mesh.local_devices), number, np.int32)
        said = jax.make_array_from_process_local_data(spread(self._mesh), own)
        self._under_way.append(self._largest(said))
        if len(self._under_way) <= self._delay:
            return 0
        return int(self._under_way.popleft())

    def forget(self) -> None:
        """Drops the numbers that were said and not heard yet; all processes do so."""
        self._under_way.clear()


@contextlib.contextmanager
def joined(
    coordinator: str,
    number: int | None = None,
    index: int | None = None,
    report: Callable[[str], None] = print,
) -> Iterator[None]:
    """Makes this process one of several for a while. Enter it before JAX starts.

    Should one of them fail or die, the others end within a minute, should it hang,
    within eleven, each with a line that says which, and why.

    Args:
        coordinator: "host:port" where the first process can be reached; "auto" on a TPU
            slice, under Slurm and Open MPI, where JAX finds all of it by itself.
        number: of processes.
        index: of this one, from 0.
        report: receives a line before the processes wait for one another.

    Raises:
        ConfigError: the arguments are no such thing.
        RunError: the others cannot be reached, or one of them failed.
    """
    _check(coordinator, number, index)
    report(f"waiting for {number or 'the other'} processes at {coordinator}")
    if coordinator != DETECTED:
        _reach(parts_of(coordinator), index)
    late = f"not all processes came to {coordinator} in {_JOIN} seconds: start them all"
    with say_when_aborted(lambda: late):
        _initialize(coordinator, number, index)
    state = distributed.global_state
    watch = Watch(state.client, jax.process_index(), count(), lambda: Agreement.calls)
    watch.start()
    address = state.coordinator_address
    with say_when_aborted(lambda: first_is_gone(str(address))):
        try:
            _check_devices()
            meet()
            Agreement(over())(0)
            yield
            watch.leave(_END)
        except BaseException as error:
            if isinstance(error, UserError) and error.shared:
                watch.leave(_END)
            else:
                atexit.register(_exit, getattr(error, "exit_code", 1))
                _fail(watch, error)
            raise
        finally:
            watch.close()
    jax.distributed.shutdown()


def _check(coordinator: str, number: int | None, index: int | None) -> None:
    if coordinator == DETECTED:
        return
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(
            f"--coordinator={coordinator} is no address: name a host and a free port "
            f"of the first process, 192.168.0.5:9999, or {DETECTED}"
        )
    if not 0 < parts_of(coordinator)[1] < _PORTS:
        raise ConfigError(
            f"--coordinator={coordinator}: ports are from 1 to {_PORTS - 1}"
        )
    if number is None or index is None:
        raise ConfigError(
            f"--coordinator={coordinator} needs --num_processes and --process_id"
        )
    if not 0 <= index < number:
        raise ConfigError(
            f"--process_id={index} is none of {number} processes: they count from 0"
        )


def _reach(address: tuple[str, int], index: int | None) -> None:
    """Waits until the first process is there, where JAX would abort this one."""
    host, port = address
    if index == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise RunError(
                f"port {port} of this machine cannot be used ({why}): name another one "
                "in --coordinator"
            ) from error
        return
    last = time.monotonic() + _JOIN
    while True:
        try:
            return socket.create_connection(address, timeout=5).close()
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > last:
                raise RunError(
                    f"the first process cannot be reached at {host}:{port} "
                    f"({error.strerror or error}): start it, with --process_id=0"
                ) from error
            time.sleep(0.5)


def _initialize(coordinator: str, number: int | None, index: int | None) -> None:
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM
    address = None if coordinator == DETECTED else coordinator
    try:
        jax.distributed.initialize(
            address,
            number,
            index,
            initialization_timeout=_JOIN,
        )
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise RunError(
            f"the processes did not find one another at {coordinator}: {said}"
        ) from error


def _check_devices() -> None:
    first, own = told(jax.local_device_count), jax.local_device_count()
    if first != own:
        raise ConfigError(
            f"this process has {own} devices and the first one {first}: show each as "
            "many, by CUDA_VISIBLE_DEVICES, say"
        )


def _fail(watch: Watch, error: BaseException) -> None:
    """Tells the others that this process fails, unless another one made it."""
    if isinstance(error, UserError) or not isinstance(error, Exception):
        watch.tell(str(error) or type(error).__name__)
    elif reason := watch.why():
        watch.go()
        raise RunError(reason) from error
    else:
        watch.tell(f"{type(error).__name__}: {error}")


def _exit(status: int) -> None:
    """Ends this process where JAX's own handler would wait for those that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
