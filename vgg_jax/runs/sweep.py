"""Runs a grid of settings and seeds, or a search, and compares the runs.

    python -m vgg_jax.runs.sweep --config=configs/vgg16.py --config.lr=0.01,0.03 --seeds=3
    python -m vgg_jax.runs.sweep --config=configs/vgg16.py --config.lr=0.001..0.1 --trials=20

Every `--config.<field>=a,b,c` is an axis of the grid, one value a setting of all. With
`--trials=N` Optuna (if installed) chooses N settings instead, by validation accuracy,
from such lists and from ranges `low..high`. `--devices=0,1` keeps that many runs going,
each on its own GPU or TPU chip; `--devices=cpu0,cpu1` on its own core, which small
networks use better than all of them use all cores (RESULTS.md).

Each run has a workdir of its own in `--workdir` (default `runs/sweep-<config>`), so the
same command goes on where it was stopped and leaves finished runs alone. Ends with a
table (mean and spread over the seeds, best validation first), `sweep.json` and
`comparison.html`. Choose by the validation column; the test column is for the end.
"""

import argparse
import json
import statistics
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from vgg_jax.errors import ConfigError, RunError, guarded
from vgg_jax.runs import comparison
from vgg_jax.runs import metric_log as log
from vgg_jax.runs import sweep_grid as axes
from vgg_jax.runs.launcher import Runner, devices
from vgg_jax.runs.optuna_search import search
from vgg_jax.runs.run_record import Record


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

    def __init__(self, runner: Runner, along: axes.Axes, seeds: int):
        self._runner, self._along, self._seeds = runner, along, seeds
        self.records: dict[str, Record] = {}
        self.failed: list[str] = []
        self._locks: dict[str, threading.Lock] = {}

    def names(self, setting: Mapping[str, str]) -> list[str]:
        return [axes.name(setting, self._along, seed) for seed in range(self._seeds)]

    def run(self, setting: Mapping[str, str], seed: int) -> Record:
        """The run of a setting; a search may ask for the same one twice."""
        own = axes.name(setting, self._along, seed)
        with self._locks.setdefault(own, threading.Lock()):
            if own not in self.records:
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
        settings = axes.grid(self._along)
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
            self.failed.append(axes.name(setting, self._along, seed))

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
            title = ", ".join(axes.varying(setting, self._along)) or "as is"
            rows[title] = row(title, [self.records[n] for n in self.names(setting)])
        return ranked(list(rows.values()))


def main(arguments: Sequence[str]) -> None:
    """The command line.

    Raises:
        ConfigError: an option or a setting is wrong.
        RunError: a run failed; what it said is above. The others have run.
    """
    options, settings = _parser().parse_known_args(arguments)
    if options.seeds < 1 or options.trials < 0:
        raise ConfigError(
            f"--seeds={options.seeds} must be 1 or more, "
            f"--trials={options.trials} must be 0 or more"
        )
    file, _, argument = options.config.partition(":")
    stem = "-".join(filter(None, ["sweep", Path(file).stem, argument]))
    workdir = options.workdir or Path("runs") / stem
    runner = Runner(options.config, workdir, devices(options.devices))
    sweep = Sweep(runner, axes.parse(settings), options.seeds)
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
        "python -m vgg_jax.runs.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument("--seeds", type=int, default=1, help="runs of a setting")
    parser.add_argument("--trials", type=int, default=0, help="settings Optuna chooses")
    parser.add_argument("--devices", default="", help="0,1 or cpu0,cpu1: a run on each")
    parser.add_argument("--workdir", type=Path)
    return parser


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
