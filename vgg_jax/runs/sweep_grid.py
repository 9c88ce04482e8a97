"""What a sweep tries: fields and their values, as written on the command line."""

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vgg_jax.errors import ConfigError

# What names of directories do without: Orbax and shells read [ ] * ? \ as patterns.
_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]")
_LONGEST_NAME = 200  # bytes; file systems allow 255, and `.log` comes behind


class Range(NamedTuple):
    """Numbers from `low` to `high`.

    Whole numbers if both ends are; spread by their logarithm if `high` is at least ten
    times `low` and `low` is above 0.
    """

    low: float
    high: float

    @staticmethod
    def parse(text: str) -> "Range | None":
        """Returns the range written `0.001..0.1`, or None if the text is not such.

        Raises:
            ConfigError: the range is empty or endless.

        >>> Range.parse("1..4")
        Range(low=1, high=4)
        """
        try:
            low, high = (_number(part) for part in text.split(".."))
        except ValueError:
            return None
        if not low < high:
            raise ConfigError(f"{text!r} is an empty range: write low..high")
        if math.isinf(low) or math.isinf(high):
            raise ConfigError(f"{text!r} is an endless range: write low..high")
        return Range(low, high)

    def suggest(self, trial: Any, field: str) -> str:
        """Returns the value that an Optuna trial chooses, as a setting is written."""
        log = 0 < 10 * self.low <= self.high
        if isinstance(self.low, int) and isinstance(self.high, int):
            return str(trial.suggest_int(field, self.low, self.high, log=log))
        value = trial.suggest_float(field, self.low, self.high, log=log)
        short = f"{value:.4g}"
        return short if self.low <= float(short) <= self.high else repr(value)

    def ends(self) -> list[str]:
        """Returns the lowest and the highest value, as a setting is written."""
        return [str(self.low), str(self.high)]


def _number(text):
    try:
        return int(text)
    except ValueError:
        return float(text)


Grid = dict[str, Range | list[str]]  # field -> what to try of it


def parse(settings: Sequence[str]) -> Grid:
    """Returns the grid that a command line asks for.

    Args:
        settings: `--config.lr=0.01,0.03`; commas separate the values, except inside
            brackets: `--config.model.hidden=(64,64),(128,)`. Or `0.01..0.1`.

    Raises:
        ConfigError: a setting is not of that form, is there twice, or sets the seed.

    >>> parse(["--config.lr=0.01,0.03", "--config.epochs=1..4"])
    {'lr': ['0.01', '0.03'], 'epochs': Range(low=1, high=4)}
    """
    grid: Grid = {}
    for setting in settings:
        field, equals, values = setting.removeprefix("--config.").partition("=")
        if not (setting.startswith("--config.") and field and equals):
            raise ConfigError(f"{setting!r}: write --config.<field>=<value>,<value>")
        if field == "seed":
            raise ConfigError("config.seed is the sweep's own axis: use --seeds=N")
        if field in grid:
            raise ConfigError(
                f"config.{field} is there twice: write its values in one, "
                f"--config.{field}=<value>,<value>"
            )
        grid[field] = Range.parse(values) or split(values)
    return grid


def split(values: str) -> list[str]:
    """Returns the parts between the commas that are outside brackets.

    >>> split("(64,64),(128,)")
    ['(64,64)', '(128,)']
    """
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def settings(grid: Grid) -> list[dict[str, str]]:
    """Returns all settings of a grid, the last field varying fastest.

    Raises:
        ConfigError: a field is given a range.
    """
    lists: list[list[str]] = []
    for field, values in grid.items():
        if isinstance(values, Range):
            raise ConfigError(
                f"config.{field}={values.low}..{values.high} is a range: add "
                "--trials=N to search it with Optuna, or name its values: a,b,c"
            )
        lists.append(values)
    products = itertools.product(*lists)
    return [dict(zip(grid, values, strict=True)) for values in products]


def run_name(setting: Mapping[str, str], grid: Grid, seed: int) -> str:
    """Returns the directory of a run: `lr=0.03,seed=1`, from the fields that vary.

    Letters that mean something to Orbax, file systems or shells become `_`. A short
    hash tells values apart that would then be the same, and ends a name cut to 200
    bytes.

    >>> grid = parse(["--config.data.train=train[:50%],train"])
    >>> run_name({"data.train": "train[:50%]"}, grid, 0)
    'data.train=train__50__,seed=0'
    """
    parts = []
    for part in varying(setting, grid):
        field = part.partition("=")[0]
        alike = {v for v in _listed(grid[field]) if _safe(v) == _safe(setting[field])}
        parts.append(_safe(part) + (f"-{_hash(part)}" if len(alike) > 1 else ""))
    end = f"seed={seed}"
    name = ",".join([*parts, end])
    if len(name) > _LONGEST_NAME:
        end = f"-{_hash(','.join(varying(setting, grid)))},{end}"
        name = name[: _LONGEST_NAME - len(end)] + end
    return name


def old_run_name(setting: Mapping[str, str], grid: Grid, seed: int) -> str:
    """Returns what version 0.1 called the directory, which may be there yet."""
    return ",".join([*varying(setting, grid), f"seed={seed}"])


def readable(name: str) -> bool:
    """Returns whether Orbax can read checkpoints back from a directory `name`."""
    return not set(r"[]*?\/") & set(name)


def _listed(values: Range | list[str]) -> list[str]:
    return [] if isinstance(values, Range) else values


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def varying(setting: Mapping[str, str], grid: Grid) -> list[str]:
    """Returns `field=value` for the fields that have more than one value to try."""
    varies = lambda f: isinstance(grid[f], Range) or len(grid[f]) > 1
    return [f"{field}={value}" for field, value in setting.items() if varies(field)]
