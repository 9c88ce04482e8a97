"""What a process does of a study, and whether the others that do live.

Optuna's journal knows no heartbeat: who has a trial under way shows signs of life.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from vgg_jax.runs import study

_BEAT = 15.0  # seconds between signs of life
_SILENT = 120.0  # seconds without one after which a process is taken for dead
_POLL = 2.0  # seconds between looks at what other processes have under way
_WORKER, _ALIVE = "worker", "alive"  # attributes of trials
# What Optuna raises where a trial has ended.
_ENDED = (ValueError, optuna.exceptions.UpdateFinishedTrialError)


class Worker:
    """What this process does of a study, with others or alone.

    Args:
        of: the study.
        take: takes the next trial of it, or returns None.
        stopping: whether this process is to end.
    """

    def __init__(
        self,
        of: optuna.Study,
        take: Callable[[optuna.Study], Trial | None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._study, self._take, self._stopping = of, take, stopping
        self._lock = threading.RLock()
        self._own: dict[int, Trial] = {}  # under way in this process
        self._seen: dict[int, tuple[Any, float]] = {}  # signs of life of the others'
        self._waits = False

    @contextlib.contextmanager
    def alive(self) -> Any:
        """Shows signs of life meanwhile; gives back what was not finished, after."""
        ended = threading.Event()

        def beat() -> None:
            beats = 0
            while not ended.wait(_BEAT):
                beats += 1
                with self._lock:
                    for trial in self._own.values():
                        with contextlib.suppress(Exception):  # told by the next use
                            trial.set_user_attr(_ALIVE, beats)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for number in list(self._own):
                self._give_back(self._study.trials[number])

    def next(self) -> Trial | None:
        """Takes the next trial, waiting for what other processes have under way.

        Returns:
            None once nothing is left to do.

        Raises:
            KeyboardInterrupt: this process is to end.
        """
        while True:
            with self._lock:
                self._others()  # what a dead one had comes first
                if trial := self._take(self._study):
                    self._own[trial.number] = trial
                    trial.set_user_attr(_WORKER, _here())
                    return trial
                others = self._others()  # again: one may have taken the last
            waiting = self._study.get_trials(
                deepcopy=False, states=[TrialState.WAITING]
            )
            if not others and not waiting:
                return None
            if not others:
                continue  # what a dead one had is queued again
            if not self._waits:
                self._waits = True
                names = sorted({_host(trial) for trial in others})
                print(f"waiting for what runs on {', '.join(names)}", flush=True)
            time.sleep(_POLL)
            if self._stopping():
                raise KeyboardInterrupt

    def tell(self, trial: Trial, value: float | None = None, **state: Any) -> None:
        """Ends a trial, with a score or a state, unless it was given to another."""
        with self._lock:
            del self._own[trial.number]
            with contextlib.suppress(*_ENDED):  # this process was silent for long
                self._study.tell(trial, value, **state)

    def _others(self) -> list[FrozenTrial]:
        """Returns what other processes have under way; gives back what the dead had."""
        now, alive = time.monotonic(), []
        for trial in self._study.get_trials(
            deepcopy=False, states=[TrialState.RUNNING]
        ):
            if trial.number in self._own:
                continue
            sign = trial.user_attrs.get(_ALIVE)
            if self._seen.get(trial.number, (None, 0.0))[0] != sign or (
                trial.number not in self._seen
            ):
                self._seen[trial.number] = sign, now
            silent = now - self._seen[trial.number][1] > _SILENT
            if silent or _is_dead(trial.user_attrs.get(_WORKER)):
                self._give_back(trial)
            else:
                alive.append(trial)
        return alive

    def _give_back(self, trial: FrozenTrial) -> None:
        """Ends a trial that was cut short, and queues it again."""
        self._own.pop(trial.number, None)
        try:
            self._study.tell(trial.number, state=TrialState.FAIL)
        except _ENDED:  # another process did
            return
        setting = study.setting_of(trial)
        if setting or trial.params:
            kept = {
                k: v
                for k, v in trial.user_attrs.items()
                if k in (study.SETTING, study.TIME)
            }
            self._study.enqueue_trial(trial.params, user_attrs=kept)


def _here() -> list[Any]:
    return [socket.gethostname(), os.getpid(), _namespace()]


def _namespace() -> str:
    """Returns what tells the process numbers of containers apart; "" if nothing."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _host(trial: FrozenTrial) -> str:
    worker = trial.user_attrs.get(_WORKER)
    return worker[0] if worker else "another machine"


def _is_dead(worker: Sequence[Any] | None) -> bool:
    """Whether a trial's process was of this machine, and is gone.

    One without a worker is of an older version, or was taken this moment.
    """
    host, *more = _here()[0], _here()[2]
    if not worker or worker[0] != host or worker[2:] not in ([], more):
        return False
    if worker[1] == os.getpid():
        return True  # of an earlier sweep in this process
    try:
        os.kill(worker[1], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
