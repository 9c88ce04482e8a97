"""Runs a grid of settings and seeds, or a search, and compares the runs.

    python -m vgg_jax.sweep --config=configs/vgg16.py --config.lr=0.01,0.03 --seeds=3
    python -m vgg_jax.sweep --config=configs/vgg16.py --config.lr=0.001..0.1 --trials=20

Every `--config.<field>=a,b,c` is an axis of the grid, one value a setting of all. With
`--trials=N` Optuna (if installed) chooses N settings instead, by validation accuracy,
from such lists and from ranges `low..high`. `--devices=0,1` keeps that many runs going,
each on its own GPU or TPU chip.

Each run has a workdir of its own in `--workdir` (default `runs/sweep-<config>`), so the
same command goes on where it was stopped and leaves finished runs alone. Ends with a
table (mean and spread over the seeds, best validation first), `sweep.json` and
`comparison.html`. Choose by the validation column; the test column is for the end.
"""

import argparse
import itertools
import json
import statistics
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from vgg_jax import comparison, log
from vgg_jax.errors import ConfigError, RunError, guarded
from vgg_jax.record import Record
from vgg_jax.runner import Runner
from vgg_jax.search import Range, search

Axes = dict[str, Range | list[str]]


def axes(settings: Sequence[str]) -> Axes:
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
    parts = _varying(setting, along) + [f"seed={seed}"]
    return ",".join(parts).replace("/", "_")


def _varying(setting, along):
    varies = lambda f: isinstance(along[f], Range) or len(along[f]) > 1  # noqa: E731
    return [f"{field}={value}" for field, value in setting.items() if varies(field)]


def row(setting: str, records: Sequence[Record]) -> dict:
    """A row of the table: best validation accuracy and test accuracy of each seed."""
    best = [max(r.column("val_accuracy")[1], default=None) for r in records]
    test = [record.result["test"]["accuracy"] for record in records]
    return {"setting": setting, "validation": best, "test": test}


def ranked(rows: Sequence[dict]) -> list[dict]:
    """Best mean validation accuracy first; of test where there is no validation."""
    by = "test" if None in rows[0]["validation"] else "validation"
    return sorted(rows, key=lambda row: -statistics.mean(row[by]))


def _spread(values):
    if None in values:
        return "-"
    text = f"{100 * statistics.mean(values):.2f}"
    if len(values) > 1:
        text += f" +- {100 * statistics.stdev(values):.2f}"
    return text


class Sweep:
    """The runs of a sweep.

    Args:
        runner: starts them.
        along: the axes.
        seeds: 0 ... seeds - 1 are run for every setting.
    """

    def __init__(self, runner: Runner, along: Axes, seeds: int):
        self._runner, self._along, self._seeds = runner, along, seeds
        self.records: dict[str, Record] = {}
        self.failed: list[str] = []
        self._locks: dict[str, threading.Lock] = {}

    def names(self, setting: Mapping[str, str]) -> list[str]:
        return [name(setting, self._along, seed) for seed in range(self._seeds)]

    def run(self, setting: Mapping[str, str], seed: int) -> Record:
        """The run of a setting; a search may ask for the same one twice."""
        own = name(setting, self._along, seed)
        with self._locks.setdefault(own, threading.Lock()):
            if own not in self.records:
                print(f"run {own}", flush=True)
                fields = {**setting, "seed": str(seed)}
                self.records[own] = self._runner(own, fields)
            return self.records[own]

    def score(self, setting: Mapping[str, str]) -> float:
        """Mean over the seeds of the best validation accuracy."""
        records = [self.run(setting, seed) for seed in range(self._seeds)]
        values = row("", records)["validation"]
        if None in values:
            raise ConfigError(
                "a search needs a validation split, and data.validation='none'"
            )
        return statistics.mean(values)

    def grid(self) -> list[dict[str, str]]:
        """Runs the whole grid; returns its settings that have all their runs."""
        settings = grid(self._along)
        jobs = [
            partial(self._tried, setting, seed)
            for setting in settings
            for seed in range(self._seeds)
        ]
        self._runner.all(jobs)
        whole = lambda s: all(n in self.records for n in self.names(s))  # noqa: E731
        return [setting for setting in settings if whole(setting)]

    def _tried(self, setting, seed):
        try:
            self.run(setting, seed)
        except RunError as error:
            print(f"{error}; the sweep goes on", flush=True)
            self.failed.append(name(setting, self._along, seed))

    def search(self, trials: int, workdir: Path, config: str) -> list[dict[str, str]]:
        """Runs `trials` settings that Optuna chooses; returns them."""
        identity = {"config": config, "fields": self._along, "seeds": self._seeds}
        found = search(
            self._along, trials, self.score, self._runner.all, workdir, identity
        )
        for setting in found:  # those of an earlier command too
            for own in self.names(setting):
                self.records.setdefault(own, Record(workdir / own))
        return found

    def rows(self, settings: Sequence[Mapping[str, str]]) -> list[dict]:
        """The table, best first."""
        rows = {}
        for setting in settings:
            title = ", ".join(_varying(setting, self._along)) or "as is"
            rows[title] = row(title, [self.records[n] for n in self.names(setting)])
        return ranked(list(rows.values()))


def main(arguments: Sequence[str]) -> None:
    """The command line.

    Raises:
        RunError: a run failed; what it said is above. The others have run.
    """
    options, settings = _parser().parse_known_args(arguments)
    file, _, argument = options.config.partition(":")
    stem = "-".join(filter(None, ["sweep", Path(file).stem, argument]))
    workdir = options.workdir or Path("runs") / stem
    workdir.mkdir(parents=True, exist_ok=True)
    devices = list(filter(None, options.devices.split(",")))
    runner = Runner(options.config, workdir, devices)
    sweep = Sweep(runner, axes(settings), options.seeds)
    if options.trials:
        done = sweep.search(options.trials, workdir, options.config)
    else:
        done = sweep.grid()
    if not done:
        raise RunError("no setting has all its runs: see what they said")
    rows = sweep.rows(done)
    log.write_atomically(workdir / "sweep.json", json.dumps(rows, indent=2) + "\n")
    page = workdir / "comparison.html"
    shown = dict.fromkeys(own for setting in done for own in sweep.names(setting))
    log.write_atomically(page, comparison.page([sweep.records[own] for own in shown]))
    width = max(len(row["setting"]) for row in rows)
    print(f"{'setting':{width}}  {'validation %':>15}  {'test %':>15}  seeds")
    for found in rows:
        cells = (f"{_spread(found[key]):>15}" for key in ("validation", "test"))
        print(f"{found['setting']:{width}}  {'  '.join(cells)}  {len(found['test'])}")
    print(page)
    if sweep.failed:
        raise RunError(
            f"these runs failed, and their settings are not in the table: "
            f"{', '.join(sweep.failed)}; the same command tries them again"
        )


def _parser():
    parser = argparse.ArgumentParser(
        "python -m vgg_jax.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument("--seeds", type=int, default=1, help="runs of a setting")
    parser.add_argument("--trials", type=int, default=0, help="settings Optuna chooses")
    parser.add_argument("--devices", default="", help="0,1: a run on each at a time")
    parser.add_argument("--workdir", type=Path)
    return parser


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
