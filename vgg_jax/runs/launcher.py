"""Runs as processes, several at a time, each on a device of its own."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs.run_record import RunRecord

# The package that this process runs, whatever the working directory holds (-P).
_TRAIN = (sys.executable, "-P", "-m", "vgg_jax", "train")
_ROOT = str(Path(__file__).resolve().parents[2])
# How a run ends that a signal stopped: as `loop.Stopped`, or before that listened.
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def devices(option: str) -> list[str]:
    """Returns the names between the commas of `--devices`.

    >>> devices("cpu0, cpu1")
    ['cpu0', 'cpu1']
    """
    return [name for name in map(str.strip, option.split(",")) if name]


def _core(device: str | None) -> int | None:
    """Returns the 3 of `cpu3`; None for a GPU's or TPU chip's number."""
    match = re.fullmatch(r"cpu([0-9]+)", device or "")
    return int(match[1]) if match else None


def _check_cores(devices: Sequence[str]) -> None:
    cores = {device: _core(device) for device in devices if "cpu" in device.lower()}
    if not cores:
        return
    asked = f"--devices={','.join(devices)}"
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError(f"{asked}: only Linux ties a run to a core; leave it out")
    there = os.sched_getaffinity(0)
    if not set(cores.values()) <= there:
        named = ",".join(f"cpu{core}" for core in sorted(there))
        raise ConfigError(f"{asked}: the cores here are {named}")


@contextlib.contextmanager
def _tied(core: int | None) -> Iterator[None]:
    """Ties this thread, and what it starts, to a core; None leaves it as it is."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _only(device: str | None) -> dict[str, str]:
    """Returns variables by which a run sees one device (libtpu: and no peers)."""
    if device is None:
        return {}
    if _core(device) is not None:
        return {"JAX_PLATFORMS": "cpu"}
    return {
        "CUDA_VISIBLE_DEVICES": device,
        "TPU_VISIBLE_CHIPS": device,
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
    }


class Launcher:
    """Starts runs, in workdirs below one directory.

    Args:
        config: `--config` of all runs.
        workdir: directory of the workdirs.
        devices: numbers of the GPUs or TPU chips to use, one per run, or cores
            of the processor as Linux counts them (`cpu0`); empty: one run at a time,
            which sees all there is and prints here. With several, what a run prints
            goes to `<workdir>/<name>.log`.

    Raises:
        ConfigError: there is no such core.
        RunError: the directory cannot be made.
    """

    def __init__(self, config: str, workdir: Path, devices: Sequence[str] = ()) -> None:
        _check_cores(devices)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"--workdir={workdir} cannot be made ({error}): give another"
            ) from error
        self._config = config
        self._workdir = workdir
        self.several = len(devices) > 1
        self.workers = max(len(devices), 1)
        self._free: queue.Queue = queue.Queue()
        for device in devices or [None]:
            self._free.put(device)
        self._lock = threading.Lock()
        self._stopping = False
        self._processes: set[subprocess.Popen] = set()

    def __call__(self, name: str, fields: Mapping[str, str]) -> RunRecord:
        """Runs or resumes the run `name`; waits for a free device, and for its end.

        Raises:
            ConfigError: its settings are wrong.
            RunError: it failed otherwise; what it said is above or in its log.
            KeyboardInterrupt: a signal stopped it, its state is saved; or `all` ends.
        """
        device = self._free.get()
        try:
            status = self._run(name, fields, device)
        finally:
            self._free.put(device)
        if status in _STOPPED:
            raise KeyboardInterrupt
        if status:
            where = f"see {self._log(name)}" if self.several else "see above"
            error = ConfigError if status == ConfigError.exit_code else RunError
            raise error(f"run {name} ended with status {status}, {where}")
        return RunRecord(self._workdir / name)

    def _log(self, name):
        return self._workdir / f"{name}.log"

    def _run(self, name, fields, device):
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        environ = os.environ | _only(device) | {"PYTHONPATH": path}
        flags = [f"--config.{field}={value}" for field, value in fields.items()]
        command = [*_TRAIN, f"--config={self._config}", *flags]
        with contextlib.ExitStack() as stack:
            out = None
            if self.several:
                out = stack.enter_context(open(self._log(name), "a"))
            with self._lock, _tied(_core(device)):
                if self._stopping:
                    raise KeyboardInterrupt
                print(f"run {name}", flush=True)
                process = subprocess.Popen(
                    [*command, f"--workdir={self._workdir / name}"],
                    env=environ,
                    stdout=out,
                    stderr=subprocess.STDOUT if out else None,
                    start_new_session=True,  # gets our signal, not the terminal's too
                )
                self._processes.add(process)
            status = process.wait()
            with self._lock:
                self._processes.discard(process)
            return status

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
        saves itself, nothing else begins, and it is raised.
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
                raise  # once what runs has ended

    def _last_if_it_fails(self, job):
        try:
            return job()
        except BaseException:
            self._stop()  # here, before this thread takes the next job
            raise


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
