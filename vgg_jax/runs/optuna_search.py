"""Settings chosen by Optuna: each trial learns from those before it."""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vgg_jax.errors import ConfigError, RunError, UserError
from vgg_jax.runs.sweep_grid import Range

_DRAWS = 20  # before a setting is tried that was tried before
_REPEATS = "repeats"  # of a trial that was drawn and not tried


def search(
    grid: Mapping[str, Range | Sequence[str]],
    trials: int,
    score: Callable[[dict[str, str]], float],
    together: Callable,
    workdir: Path,
    identity: Mapping,
) -> list[dict[str, str]]:
    """Returns the settings tried that have a score, in the order of their trials.

    Goes on with the study in `<workdir>/optuna.log`: trials that a stop or crash cut
    short are tried again first, finished ones count.

    Args:
        grid: field -> a range, or the values to choose from.
        trials: number of settings to try in all.
        score: takes a setting; higher is better. A `RunError` marks the setting as
            failed (it diverged, say) and the search goes on.
        together: runs a list of jobs, as `Launcher.all`.
        workdir: keeps the study.
        identity: JSON values that say what is searched; a study goes on with its own.

    Raises:
        ConfigError: Optuna is not installed; the study in `workdir` is another; the
            settings of the first trial are wrong.
        RunError: every trial failed; the study is damaged.
    """
    optuna = _optuna()
    study = _study(optuna, workdir, json.loads(json.dumps(identity)))
    state = optuna.trial.TrialState
    for trial in study.get_trials(states=[state.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=state.FAIL)

    lock = threading.Lock()

    def one():
        with lock:  # each draws knowing what the others have drawn
            trial, setting = _drawn(study, state, grid)
        try:
            study.tell(trial, score(setting))
        except UserError as error:
            study.tell(trial, state=state.FAIL)
            nothing_yet = not study.get_trials(states=[state.COMPLETE])
            if isinstance(error, ConfigError) and nothing_yet:
                raise
            print(f"{error}; the search goes on", flush=True)

    together([one] * (trials - _ended(study, state)))
    scored = study.get_trials(states=[state.COMPLETE])
    if not scored:
        raise RunError("every run of the search failed: see what they said")
    return [trial.user_attrs["setting"] for trial in scored]


def _optuna() -> ModuleType:
    try:
        import optuna
        import optuna.storages.journal
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--trials needs Optuna, which is not installed here: pip install optuna, "
            "or leave --trials out and give each field its values: a,b,c"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna, workdir, identity) -> Any:
    """Returns the study kept in `workdir`, started or resumed."""
    log = workdir / "optuna.log"
    _cut_torn_line(log)
    file = optuna.storages.journal.JournalFileBackend(str(log))
    try:
        study = optuna.create_study(
            study_name="sweep",
            storage=optuna.storages.JournalStorage(file),
            direction="maximize",
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        raise RunError(
            f"{log} is damaged ({error}): remove it to search anew; runs that are "
            "there are used again where their setting is chosen again"
        ) from error
    known = study.user_attrs.get("identity", identity)
    if known != identity:
        changed = [key for key in identity if identity[key] != known.get(key)]
        raise ConfigError(
            f"{workdir} holds a search with another {', '.join(changed)} "
            f"({', '.join(str(known.get(key)) for key in changed)}): give the command "
            "that began it, or another --workdir"
        )
    study.set_user_attr("identity", identity)
    study.sampler = optuna.samplers.TPESampler(
        seed=len(study.trials), constant_liar=True
    )
    return study


def _cut_torn_line(log: Path) -> None:
    """Cuts what a crash left of a line: Optuna would write on behind it."""
    if log.exists():
        whole = log.read_bytes().rfind(b"\n") + 1
        os.truncate(log, whole)


def _drawn(study, state, grid) -> tuple[Any, dict[str, str]]:
    """Returns the next trial and its setting: a new one, unless few are left."""
    known = [
        trial.user_attrs.get("setting")
        for trial in study.get_trials(states=[state.RUNNING, state.COMPLETE])
    ]
    draws = 0
    while True:
        trial = study.ask()
        setting = {f: _suggest(trial, f, tried) for f, tried in grid.items()}
        begun_before = "fixed_params" in study.trials[trial.number].system_attrs
        draws += 1
        if setting not in known or begun_before or draws == _DRAWS:
            trial.set_user_attr("setting", setting)
            return trial, setting
        trial.set_user_attr(_REPEATS, True)
        study.tell(trial, state=state.FAIL)


def _suggest(trial, field, tried):
    if isinstance(tried, Range):
        return tried.suggest(trial, field)
    return trial.suggest_categorical(field, tried)


def _ended(study, state):
    """Returns the number of trials that ended and are not tried again."""
    ended = study.get_trials(states=[state.COMPLETE, state.FAIL])
    ended = [trial for trial in ended if _REPEATS not in trial.user_attrs]
    again = [trial for trial in study.trials if "fixed_params" in trial.system_attrs]
    return len(ended) - len(again)  # the first try of each of those failed
