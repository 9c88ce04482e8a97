"""Settings chosen by Optuna: each trial learns from those before it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vgg_jax.errors import ConfigError, RunError


class Range(NamedTuple):
    """Numbers from `low` to `high`: whole ones if both are; by their logarithm if
    `high` is at least ten times `low` and `low` above 0.
    """

    low: float
    high: float

    @staticmethod
    def parse(text: str) -> "Range | None":
        """`0.001..0.1`; None if the text is nothing of that form."""
        try:
            low, high = (_number(part) for part in text.split(".."))
        except ValueError:
            return None
        if low >= high:
            raise ConfigError(f"{text!r} is an empty range: write low..high")
        return Range(low, high)

    def suggest(self, trial, field: str) -> str:
        log = 0 < 10 * self.low <= self.high
        if isinstance(self.low, int) and isinstance(self.high, int):
            return str(trial.suggest_int(field, self.low, self.high, log=log))
        return f"{trial.suggest_float(field, self.low, self.high, log=log):.4g}"


def _number(text):
    try:
        return int(text)
    except ValueError:
        return float(text)


def search(
    axes: Mapping[str, Range | Sequence[str]],
    trials: int,
    score: Callable[[dict[str, str]], float],
    together: Callable,
    workdir: Path,
) -> list[dict[str, str]]:
    """Settings tried, in the order of their trials, with a score.

    Goes on with the study in `<workdir>/optuna.log`: trials that a stop or crash cut
    short are tried again first, finished ones count.

    Args:
        axes: field -> a range, or the values to choose from.
        trials: number of settings to try in all.
        score: takes a setting; higher is better. A `RunError` marks the setting as
            failed (it diverged, say) and the search goes on.
        together: runs a list of jobs, as `Runner.all`.

    Raises:
        ConfigError: Optuna is not installed.
        RunError: every trial failed.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--trials needs Optuna, which is not installed here: pip install optuna, "
            "or leave --trials out and give each field its values: a,b,c"
        ) from error
    state = optuna.trial.TrialState
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(str(workdir / "optuna.log"))),
        direction="maximize",
        load_if_exists=True,
    )
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    for trial in study.get_trials(states=[state.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=state.FAIL)

    def one():
        trial = study.ask()
        setting = {
            field: axis.suggest(trial, field)
            if isinstance(axis, Range)
            else trial.suggest_categorical(field, axis)
            for field, axis in axes.items()
        }
        trial.set_user_attr("setting", setting)
        try:
            study.tell(trial, score(setting))
        except RunError as error:
            print(f"{error}; the search goes on")
            study.tell(trial, state=state.FAIL)

    done = len(study.get_trials(states=[state.COMPLETE]))
    together([functools.partial(one) for _ in range(trials - done)])
    found = study.get_trials(states=[state.COMPLETE])
    if not found:
        raise RunError("every run of the search failed: see what they said")
    return [trial.user_attrs["setting"] for trial in found]
