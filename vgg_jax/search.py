"""Settings chosen by Optuna: each trial learns from those before it."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vgg_jax.errors import ConfigError, RunError, UserError


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
    identity: Mapping,
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
        workdir: keeps the study.
        identity: JSON values that say what is searched; a study goes on with its own.

    Raises:
        ConfigError: Optuna is not installed; the study in `workdir` is another; the
            settings of the first trial are wrong.
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
    identity = json.loads(json.dumps(identity))
    known = study.user_attrs.get("identity", identity)
    if known != identity:
        changed = [key for key in identity if identity[key] != known.get(key)]
        raise ConfigError(
            f"{workdir} holds a search with another {', '.join(changed)} "
            f"({', '.join(str(known.get(key)) for key in changed)}): give the command "
            "that began it, or another --workdir"
        )
    study.set_user_attr("identity", identity)
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
        except UserError as error:
            study.tell(trial, state=state.FAIL)
            nothing_yet = not study.get_trials(states=[state.COMPLETE])
            if isinstance(error, ConfigError) and nothing_yet:
                raise
            print(f"{error}; the search goes on", flush=True)

    ended = study.get_trials(states=[state.COMPLETE, state.FAIL])
    again = [trial for trial in study.trials if "fixed_params" in trial.system_attrs]
    done = len(ended) - len(again)  # of each that is tried again, the first try failed
    together([functools.partial(one) for _ in range(trials - done)])
    found = study.get_trials(states=[state.COMPLETE])
    if not found:
        raise RunError("every run of the search failed: see what they said")
    return [trial.user_attrs["setting"] for trial in found]
