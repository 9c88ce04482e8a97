"""The runs of a sweep: a grid of settings and seeds, or a search."""

import statistics
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import sweep_grid
from vgg_jax.runs.launcher import Launcher
from vgg_jax.runs.optuna_search import search
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.sweep_grid import Grid, run_name, varying


def row(setting: str, records: Sequence[RunRecord]) -> dict:
    """Returns a row of the table: best validation and test accuracy per seed."""
    best = [max(r.column("val_accuracy")[1], default=None) for r in records]
    test = [record.test_accuracy for record in records]
    return {"setting": setting, "validation": best, "test": test}


def ranked(rows: Sequence[dict]) -> list[dict]:
    """Returns rows by mean validation accuracy, best first; by test without one."""
    by = "test" if None in rows[0]["validation"] else "validation"
    return sorted(rows, key=lambda row: -statistics.mean(row[by]))


class Sweep:
    """The runs of a sweep.

    Args:
        launcher: starts them.
        grid: what is tried of each field.
        seeds: number of runs of every setting, with seeds 0 ... seeds - 1.
    """

    def __init__(self, launcher: Launcher, grid: Grid, seeds: int) -> None:
        self._launcher, self._grid, self._seeds = launcher, grid, seeds
        self.records: dict[str, RunRecord] = {}
        self.failed: list[str] = []
        self._locks: dict[str, threading.Lock] = {}

    def names(self, setting: Mapping[str, str]) -> list[str]:
        """Returns the names of a setting's runs, one per seed."""
        return [run_name(setting, self._grid, seed) for seed in range(self._seeds)]

    def run(self, setting: Mapping[str, str], seed: int) -> RunRecord:
        """Returns the finished run of a setting; it runs once, however often asked."""
        name = run_name(setting, self._grid, seed)
        with self._locks.setdefault(name, threading.Lock()):
            if name not in self.records:
                fields = {**setting, "seed": str(seed)}
                self.records[name] = self._launcher(name, fields)
            return self.records[name]

    def score(self, setting: Mapping[str, str]) -> float:
        """Returns the mean over the seeds of the best validation accuracy."""
        records = [self.run(setting, seed) for seed in range(self._seeds)]
        values = row("", records)["validation"]
        if None in values:
            raise ConfigError(
                "a search needs a validation split, and data.validation='none'"
            )
        return statistics.mean(values)

    def run_all(self) -> list[dict[str, str]]:
        """Runs the whole grid; returns its settings that have all their runs."""
        settings = sweep_grid.settings(self._grid)
        jobs = [
            partial(self._tried, setting, seed)
            for setting in settings
            for seed in range(self._seeds)
        ]
        self._launcher.all(jobs)
        whole = lambda s: all(n in self.records for n in self.names(s))
        return [setting for setting in settings if whole(setting)]

    def _tried(self, setting, seed):
        try:
            self.run(setting, seed)
        except RunError as error:
            print(f"{error}; the sweep goes on", flush=True)
            self.failed.append(run_name(setting, self._grid, seed))

    def search(self, trials: int, workdir: Path, config: str) -> list[dict[str, str]]:
        """Runs `trials` settings that Optuna chooses; returns them."""
        identity = {"config": config, "fields": self._grid, "seeds": self._seeds}
        settings = search(
            self._grid, trials, self.score, self._launcher.all, workdir, identity
        )
        for setting in settings:  # those of an earlier command too
            for name in self.names(setting):
                self.records.setdefault(name, RunRecord(workdir / name))
        return settings

    def rows(self, settings: Sequence[Mapping[str, str]]) -> list[dict]:
        """Returns the table, best setting first."""
        rows = {}
        for setting in settings:
            title = ", ".join(varying(setting, self._grid)) or "as is"
            rows[title] = row(title, [self.records[n] for n in self.names(setting)])
        return ranked(list(rows.values()))
