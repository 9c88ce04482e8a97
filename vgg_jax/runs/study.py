"""The study of a sweep: what is tried, by whom, and what came of it. It is Optuna's.

Any number of processes, on any number of machines, may work on one study at a time:
each takes what is next. A process that dies shows no more signs of life, and what it
had under way is given to another.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs.sweep_grid import Grid, Range

JOURNAL = "optuna.log"  # in the workdir of a sweep, unless it names a storage
_ATTEMPTS, _RETRY = 5, 0.5  # at opening a database, seconds apart
_BUSY = 60.0  # seconds to wait while another process writes to SQLite's
# Draws before a setting is tried that was tried before; after some, at random: where
# few settings are good, the sampler proposes the same ones again and again.
_DRAWS, _GUIDED = 50, 10
# Attributes of trials and studies.
SETTING = "setting"
TIME = "time"  # of a job: how often it was done before
_VOID = "repeats"  # of a trial that was drawn and not tried
_AGAIN = "fixed_params"  # Optuna's own: of a trial that was enqueued
_UNDER_WAY = (TrialState.RUNNING, TrialState.WAITING)


def opened(storage: str, name: str, identity: Mapping[str, Any]) -> optuna.Study:
    """Returns a study, started or gone on with.

    Args:
        storage: a journal file, or the URL of a database.
        name: of the study in it.
        identity: JSON values that say what is tried; a study goes on with its own.

    Raises:
        ConfigError: the study is another; the database has no driver here.
        RunError: the storage is damaged, or cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = _created(storage, name)
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise ConfigError(f"--storage={storage} needs {driver}: install it") from error
    except (ValueError, KeyError) as error:
        raise RunError(
            f"{storage} is damaged ({error}): remove it to begin anew; runs that are "
            "there are used again where their setting is chosen again"
        ) from error
    except OSError as error:
        raise RunError(f"{storage} cannot be used ({error.strerror})") from error
    except Exception as error:  # a database's own
        said = str(error).splitlines()[0]
        raise RunError(
            f"--storage={storage} cannot be used ({said}): name a journal file, or a "
            "database of SQLAlchemy's, postgresql://..."
        ) from error
    identity = json.loads(json.dumps(identity))
    known = study.user_attrs.get("identity", identity)
    if known != identity:
        changed = [key for key in identity if identity[key] != known.get(key)]
        raise ConfigError(
            f"{storage} holds a search with another {', '.join(changed)} "
            f"({', '.join(str(known.get(key)) for key in changed)}): give the command "
            "that began it, or another --workdir"
        )
    study.set_user_attr("identity", identity)
    return study


def _created(storage: str, name: str) -> optuna.Study:
    """Opens a study, again where another process made the database's tables first."""
    for attempt in range(_ATTEMPTS, 0, -1):
        try:
            return optuna.create_study(
                study_name=name,
                storage=_storage(storage),
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:
            fatal = isinstance(error, ImportError) or "://" not in storage
            if fatal or attempt == 1:
                raise
            time.sleep(_RETRY)
    raise AssertionError("unreachable")


def _storage(storage: str) -> Any:
    if storage.startswith("sqlite:"):
        return _sqlite(storage)
    if "://" in storage:
        return storage
    log = Path(storage).absolute()  # the lock is a link to it, followed from anywhere
    lock = JournalFileSymlinkLock(str(log))
    if log.exists():
        lock.acquire()
        try:  # what a crash left of a line: Optuna would write on behind it
            os.truncate(log, log.read_bytes().rfind(b"\n") + 1)
        finally:
            lock.release()
    return optuna.storages.JournalStorage(JournalFileBackend(str(log), lock_obj=lock))


def _sqlite(url: str) -> Any:
    """Opens a database of SQLite's, whose transactions lock it from their beginning.

    As Python begins them, two processes read that a trial is free, and both take it.
    """
    from sqlalchemy import event

    own = {"isolation_level": None, "timeout": _BUSY}  # ours to begin; SQLAlchemy's way
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": own})

    @event.listens_for(storage.engine, "begin")
    def lock(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return storage


def enqueue(
    study: optuna.Study,
    jobs: Sequence[Mapping[str, str]],
    is_done: Callable[[Mapping[str, str]], bool],
) -> None:
    """Queues jobs that are not queued, under way, or done.

    Args:
        study: what they are jobs of.
        jobs: fields and their values.
        is_done: whether what a complete job left is there.
    """
    complete, open_ = [], []
    for trial in study.get_trials(deepcopy=False):
        if trial.state in _UNDER_WAY:
            open_.append(setting_of(trial))
        elif trial.state == TrialState.COMPLETE:
            complete.append(setting_of(trial))
    for job in jobs:
        if job not in open_ and not (job in complete and is_done(job)):
            attributes = {SETTING: dict(job), TIME: complete.count(job)}
            study.enqueue_trial({}, user_attrs=attributes)


def setting_of(trial: FrozenTrial | Trial) -> dict[str, str] | None:
    return trial.user_attrs.get(SETTING)


def queued(study: optuna.Study) -> Trial | None:
    """Takes the next job that was enqueued; None where there is none."""
    while study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        trial = study.ask()
        if _is_again(study, trial) and not _is_double(study, trial):
            return trial
        _void(study, trial)  # another process was quicker, to take or to queue it
    return None


def _is_double(study: optuna.Study, trial: Trial) -> bool:
    """Whether two processes queued a job at the same time, and this is the second."""
    key = lambda one: (one.user_attrs.get(SETTING), one.user_attrs.get(TIME))
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return any(
        key(other) == key(trial)
        for other in earlier
        if other.state in (*_UNDER_WAY, TrialState.COMPLETE)
    )


def drawn(study: optuna.Study, grid: Grid, trials: int) -> Trial | None:
    """Takes a setting that Optuna chooses; None where so many are chosen.

    A new one, unless few are left. Trials that were cut short come first.
    """
    sampler = study.sampler
    try:
        return _drawn(study, grid, trials)
    finally:
        study.sampler = sampler


def _drawn(study: optuna.Study, grid: Grid, trials: int) -> Trial | None:
    guided, chance = study.sampler, optuna.samplers.RandomSampler(len(study.trials))
    for draw in range(1, _DRAWS + 1):
        waiting = study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        if not waiting and _begun(study) >= trials:
            return None
        study.sampler = guided if draw <= _GUIDED else chance
        trial = study.ask()
        setting = {field: _suggest(trial, field, grid[field]) for field in grid}
        trial.set_user_attr(SETTING, setting)  # seen by others from here on
        again = _is_again(study, trial)
        if not again and _begun(study, before=trial.number) >= trials:
            _void(study, trial)  # another process was quicker
        elif again or draw == _DRAWS or setting not in _known(study, trial.number):
            return trial
        else:
            _void(study, trial)
    return None


def _known(study: optuna.Study, before: int) -> list[dict[str, str] | None]:
    """Returns the settings of earlier trials that are under way or have ended well."""
    tried = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
    earlier = study.get_trials(deepcopy=False)[:before]
    return [setting_of(trial) for trial in earlier if trial.state in tried]


def _is_again(study: optuna.Study, trial: Trial) -> bool:
    return _AGAIN in study.get_trials(deepcopy=False)[trial.number].system_attrs


def _suggest(trial: Trial, field: str, tried: Range | list[str]) -> str:
    if isinstance(tried, Range):
        return tried.suggest(trial, field)
    return trial.suggest_categorical(field, tried)


def _void(study: optuna.Study, trial: Trial) -> None:
    trial.set_user_attr(_VOID, True)
    study.tell(trial, state=TrialState.FAIL)


def _begun(study: optuna.Study, before: int | None = None) -> int:
    """Returns the number of settings that were chosen; one tried again counts once."""
    trials = study.get_trials(deepcopy=False)[:before]
    chosen = [trial for trial in trials if _VOID not in trial.user_attrs]
    return sum(_AGAIN not in trial.system_attrs for trial in chosen)


def complete(study: optuna.Study) -> list[dict[str, str]]:
    """Returns the settings that have a score, in the order of their trials."""
    scored = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return [trial.user_attrs[SETTING] for trial in scored]
