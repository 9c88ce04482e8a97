"""Whether the settings of a sweep are good, asked before its first run.

A process of its own answers: JAX starts there as in a run, so that the answer is the
same, and ends with it, so that the runs find the device free.
"""

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence

from vgg_jax.cli import config_file
from vgg_jax.errors import ConfigError, RunError, UserError
from vgg_jax.runs import sweep_grid
from vgg_jax.runs.sweep_grid import Grid, Range

_COMBINATIONS = 1000  # at most, of the values of a search


def check(
    config: str, grid: Grid, *, search: bool, environment: Mapping[str, str]
) -> None:
    """Checks every setting of a grid; of a search, the values it may choose.

    A search tells a setting that is wrong when it comes to it, so only the values that
    no combination makes good are refused: those of lists, and the ends of ranges.

    Args:
        config: `--config` of the runs.
        grid: what is tried of each field.
        search: whether Optuna will choose from the grid.
        environment: that of a run.

    Raises:
        ConfigError: all that is wrong, in one line.
        RunError: the check itself failed.
    """
    tried = {f: v.ends() if isinstance(v, Range) else v for f, v in grid.items()}
    settings = _combinations(tried) if search else sweep_grid.settings(grid)
    question = {
        "config": config,
        "settings": settings,
        "ranked": search or len(settings) > 1,
    }
    answered = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps(question),
        env=dict(environment),
        capture_output=True,
        text=True,
        start_new_session=True,  # a Ctrl-C ends it without a traceback
    )
    if answered.returncode:
        said = answered.stderr.strip().splitlines()[-1:]
        raise RunError(f"the settings could not be checked: {''.join(said)}")
    errors = json.loads(answered.stdout.splitlines()[-1])
    wrong = _wrong_values if search else _wrong_settings
    if said := wrong(settings, errors):
        raise ConfigError(f"no run was started: {'; '.join(said)}")


def _combinations(tried: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Returns combinations at random, the same each time."""
    rng = random.Random(0)
    drawn = [
        tuple((field, rng.choice(values)) for field, values in tried.items())
        for _ in range(_COMBINATIONS)
    ]
    return [dict(setting) for setting in dict.fromkeys(drawn)]


def _wrong_settings(
    settings: Sequence[Mapping[str, str]], errors: Sequence[str | None]
) -> list[str]:
    """Returns each error once, behind the first setting that has it."""
    first, count = {}, {}
    for setting, error in zip(settings, errors, strict=True):
        if error is not None:
            first.setdefault(error, setting)
            count[error] = count.get(error, 0) + 1
    said = []
    for error, setting in first.items():
        where = ", ".join(f"{field}={value}" for field, value in setting.items())
        more = f" and {count[error] - 1} more" if count[error] > 1 else ""
        everywhere = count[error] == len(settings)
        said.append(error if everywhere else f"{where}{more}: {error}")
    return said


def _wrong_values(
    settings: Sequence[Mapping[str, str]], errors: Sequence[str | None]
) -> list[str]:
    """Returns the errors of values that are wrong in all their combinations."""
    answers = list(zip(settings, errors, strict=True))
    good = {item for setting, error in answers if not error for item in setting.items()}
    said = {}
    for alone in (True, False):  # first where the other values are good
        for setting, error in answers:
            wrong = setting.items() - good
            for item in wrong if not alone or len(wrong) == 1 else ():
                said.setdefault(item, error)
    return list(dict.fromkeys(said.values()))


def _error(config: str, setting: Mapping[str, str], ranked: bool) -> str | None:
    from vgg_jax.training.config import resolve  # imports JAX

    flags = [f"--config.{field}={value}" for field, value in setting.items()]
    try:
        resolved = resolve(config_file.load(config, flags))
    except UserError as error:
        return str(error)
    if ranked and resolved.data.validation == "none":
        return (
            "data.validation='none', and a sweep chooses its setting by validation "
            "accuracy: hold images out, --config.data.validation=sklearn_80_20, or "
            "give one setting"
        )
    return None


def main() -> None:
    """Answers the question on the standard input: a list, an error or null each."""
    from vgg_jax import backend

    backend.configure()
    question = json.load(sys.stdin)
    errors = [
        _error(question["config"], setting, question["ranked"])
        for setting in question["settings"]
    ]
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
