"""What a sweep tries: fields and their values, as written on the command line."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vgg_jax.errors import ConfigError


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


Axes = dict[str, Range | list[str]]


def parse(settings: Sequence[str]) -> Axes:
    """Field -> what to try of it.

    Args:
        settings: `--config.lr=0.01,0.03`; commas separate the values, except inside
            brackets: `--config.model.hidden=(64,64),(128,)`. Or `0.01..0.1`.

    Raises:
        ConfigError: not of that form, or the seed is set.
    """
    found: Axes = {}
    for setting in settings:
        field, equals, values = setting.removeprefix("--config.").partition("=")
        if not (setting.startswith("--config.") and field and equals):
            raise ConfigError(f"{setting!r}: write --config.<field>=<value>,<value>")
        if field == "seed":
            raise ConfigError("config.seed is the sweep's own axis: use --seeds=N")
        found[field] = Range.parse(values) or split(values)
    return found


def split(values: str) -> list[str]:
    """Parts between the commas that are outside brackets."""
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def grid(along: Axes) -> list[dict[str, str]]:
    """All settings of the axes, the last axis innermost.

    Raises:
        ConfigError: an axis is a range.
    """
    for field, axis in along.items():
        if isinstance(axis, Range):
            raise ConfigError(
                f"config.{field}={axis.low}..{axis.high} is a range: add --trials=N to "
                "search it with Optuna, or name its values: a,b,c"
            )
    settings = itertools.product(*along.values())
    return [dict(zip(along, values, strict=True)) for values in settings]


def name(setting: Mapping[str, str], along: Axes, seed: int) -> str:
    """Directory of a run, of the fields that vary: `lr=0.03,seed=1`."""
    parts = varying(setting, along) + [f"seed={seed}"]
    return ",".join(parts).replace("/", "_")


def varying(setting: Mapping[str, str], along: Axes) -> list[str]:
    """`field=value` of the fields that have more than one value to try."""
    varies = lambda f: isinstance(along[f], Range) or len(along[f]) > 1  # noqa: E731
    return [f"{field}={value}" for field, value in setting.items() if varies(field)]
