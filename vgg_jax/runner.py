"""Runs of `main.py` as processes, several at a time, each on a device of its own."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.record import Record

_MAIN = Path(__file__).resolve().parent.parent / "main.py"
_STOPPED = (
    128 + signal.SIGINT,
    128 + signal.SIGTERM,
)  # `train.Stopped`
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")


class Runner:
    """Starts runs, in workdirs below one directory.

    Args:
        config: `--config` of all runs.
        workdir: directory of the workdirs.
        devices: numbers of the GPUs or TPU chips to use, one a run at a time; empty:
            one run at a time, which sees all there is and prints here. With several,
            what a run prints goes to `<workdir>/<name>.log`.
    """

    def __init__(self, config: str, workdir: Path, devices: Sequence[str] = ()):
        self._config = config
        self._workdir = workdir
        self.several = len(devices) > 1
        self.workers = max(len(devices), 1)
        self._free: queue.Queue = queue.Queue()
        for device in devices or [None]:
            self._free.put(device)
        self._processes: set[subprocess.Popen] = set()

    def __call__(self, name: str, fields: Mapping[str, str]) -> Record:
        """Runs, or goes on with, the run `name`; waits for a free device and the end.

        Raises:
            ConfigError: its settings are wrong.
            RunError: it failed otherwise; what it said is above or in its log.
        KeyboardInterrupt: a signal stopped it; its state is saved.
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
        return Record(self._workdir / name)

    def _log(self, name):
        return self._workdir / f"{name}.log"

    def _run(self, name, fields, device):
        environ = dict(os.environ)
        if device is not None:
            environ.update(dict.fromkeys(_VISIBLE, device))
        flags = [f"--config.{field}={value}" for field, value in fields.items()]
        command = [sys.executable, str(_MAIN), f"--config={self._config}", *flags]
        with contextlib.ExitStack() as stack:
            out = None
            if self.several:
                out = stack.enter_context(open(self._log(name), "a"))
            process = subprocess.Popen(
                [*command, f"--workdir={self._workdir / name}"],
                env=environ,
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
                start_new_session=True,  # gets one signal, ours, not the terminal's
            )
            self._processes.add(process)
            status = process.wait()
            self._processes.discard(process)
            return status

    def all(self, jobs: Sequence[Callable]) -> list:
        """What the jobs return, in their order; as many at a time as devices.

        SIGINT and SIGTERM are passed on once; what runs then saves itself.
        """
        with _terminated_as_interrupted(), ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(job) for job in jobs]
            try:
                return [future.result() for future in futures]
            except BaseException as error:
                for future in futures:
                    future.cancel()
                if isinstance(error, KeyboardInterrupt):
                    for process in list(self._processes):
                        process.send_signal(signal.SIGINT)
                raise  # once what runs has ended


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    def interrupt(number, frame):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
