"""Runs as processes, several at a time, each on a device of its own."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TextIO

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs.devices import Device, tied
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import is_claimed

# The package that this process runs, whatever the working directory holds (-P).
_TRAIN = (sys.executable, "-P", "-m", "vgg_jax", "train")
_ROOT = str(Path(__file__).resolve().parents[2])
# How a run ends that a signal stopped: as `interrupt.Stopped`, or before that listened.
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_LOOK = 2.0  # seconds between looks at a run


class Pruned(Exception):
    """A run was given up before its end."""


def environment(device: Device) -> dict[str, str]:
    """Returns the environment of a process of this package on a device."""
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **device.variables, "PYTHONPATH": path}


class Launcher:
    """Starts runs, in workdirs below one directory.

    Args:
        config: `--config` of all runs.
        workdir: directory of the workdirs.
        devices: where runs go, one at a time on each; empty: one run at a time, which
            sees all there is and prints here. With several, what a run prints goes to
            `<workdir>/<name>.log`.

    Attributes:
        workdir: directory of the workdirs.

    Raises:
        RunError: the directory cannot be made.
    """

    def __init__(
        self, config: str, workdir: Path, devices: Sequence[Device] = ()
    ) -> None:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"--workdir={workdir} cannot be made ({error}): give another"
            ) from error
        self._config = config
        self.workdir = workdir
        self.several = len(devices) > 1
        self.workers = max(len(devices), 1)
        self._free: queue.Queue = queue.Queue()
        for device in devices or [Device()]:
            self._free.put(device)
        self._lock = threading.Lock()
        self._stopping = False
        self._processes: set[subprocess.Popen] = set()

    @property
    def stopping(self) -> bool:
        """Whether runs are ended and none begins."""
        return self._stopping

    def __call__(
        self,
        name: str,
        fields: Mapping[str, str],
        *,
        test: bool = True,
        stops: Callable[[RunRecord], bool] | None = None,
    ) -> RunRecord:
        """Runs or resumes the run `name`; waits for a free device, and for its end.

        Args:
            name: of its directory.
            fields: of its config, as a command line sets them.
            test: whether it ends with the test split, or is only trained.
            stops: asked now and then, of the run as far as it is: whether to give it
                up.

        Raises:
            Pruned: it was given up; its state is saved.
            ConfigError: its settings are wrong.
            RunError: it failed otherwise; what it said is above or in its log.
            KeyboardInterrupt: a signal stopped it, its state is saved; or `all` ends.
        """
        device = self._free.get()
        try:
            status = self._run(name, fields, device, test, stops)
        finally:
            self._free.put(device)
        if status in _STOPPED or (status and self._stopping):
            raise KeyboardInterrupt
        if status:
            where = f"see {self._log(name)}" if self.several else "see above"
            error = ConfigError if status == ConfigError.exit_code else RunError
            raise error(f"run {name} {_ending(status)}, {where}")
        return RunRecord(self.workdir / name)

    def _log(self, name):
        return self.workdir / f"{name}.log"

    def _run(self, name, fields, device, test, stops):
        flags = [f"--config.{field}={value}" for field, value in fields.items()]
        flags += [] if test else ["--no_test"]
        command = [*_TRAIN, f"--config={self._config}", *flags]
        while is_claimed(self.workdir / name) and not self._stopping:
            time.sleep(_LOOK)  # by a run whose sweep was killed: it goes on
        with contextlib.ExitStack() as stack:
            out = None
            if self.several:
                out = stack.enter_context(_appended(self._log(name)))
            with self._lock, tied(device.core):
                if self._stopping:
                    raise KeyboardInterrupt
                print(f"run {name}", flush=True)
                process = subprocess.Popen(
                    [*command, f"--workdir={self.workdir / name}"],
                    env=environment(device),
                    stdout=out,
                    stderr=subprocess.STDOUT if out else None,
                    start_new_session=True,  # gets our signal, not the terminal's too
                )
                self._processes.add(process)
            given_up = self._waited(process, name, stops)
            with self._lock:
                self._processes.discard(process)
                if given_up and not self._stopping:
                    raise Pruned(f"run {name} was given up")
            return process.returncode

    def _waited(self, process, name, stops):
        """Waits for a run to end; returns whether it was given up."""
        given_up = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK if stops and not given_up else None)
                return given_up
            with contextlib.suppress(RunError):  # it has not begun
                if stops(RunRecord(self.workdir / name)):
                    given_up = True
                    process.send_signal(signal.SIGINT)

    def _stop(self):
        """Prevents further runs from starting; has those under way save and end."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                for process in self._processes:
                    process.send_signal(signal.SIGINT)

    def all(self, jobs: Sequence[Callable]) -> list:
        """Returns what the jobs return, in order; as many run at a time as devices.

        What a job raises, and SIGINT, SIGTERM and SIGHUP, end them all: what runs
        saves itself, nothing else begins, and it is raised. A second signal, at least
        one second later, kills what runs.
        """
        with _as_interrupts(_SIGNALS), ThreadPoolExecutor(self.workers) as pool:
            futures = []
            try:
                futures += [pool.submit(self._last_if_it_fails, job) for job in jobs]
                return [future.result() for future in futures]
            except BaseException:
                self._stop()
                for future in futures:
                    future.cancel()
                self._wait(futures)
                raise

    def _wait(self, futures):
        stopped = time.monotonic()
        while True:
            try:
                wait(futures)
                return
            except KeyboardInterrupt:
                if time.monotonic() - stopped >= 1:
                    with self._lock:
                        for process in self._processes:
                            process.kill()

    def _last_if_it_fails(self, job):
        try:
            return job()
        except BaseException:
            self._stop()  # here, before this thread takes the next job
            raise


def _ending(status: int) -> str:
    """Returns how a process ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


def _appended(log: Path) -> TextIO:
    try:
        return open(log, "a")
    except OSError as error:
        raise RunError(f"{log} cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def _as_interrupts(signals: Sequence[int]) -> Iterator[None]:
    """Makes signals raise KeyboardInterrupt."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    heard = [s for s in signals if signal.getsignal(s) != signal.SIG_IGN]  # nohup's
    old = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
