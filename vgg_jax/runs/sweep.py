"""The runs of a sweep: a grid of settings and seeds, or a search."""

import os
import statistics
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from vgg_jax.errors import RunError
from vgg_jax.runs import sweep_grid
from vgg_jax.runs.launcher import Launcher
from vgg_jax.runs.optuna_search import search
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.sweep_grid import Grid, varying


def row(setting: str, records: Sequence[RunRecord]) -> dict:
    """Returns a row of the table: best validation accuracy per seed, and no test."""
    best = [record.best_validation for record in records]
    return {"setting": setting, "validation": best, "test": [None] * len(records)}


def ranked(rows: Sequence[dict]) -> list[dict]:
    """Returns rows by mean validation accuracy, best first.

    Raises:
        RunError: there are several, and one has no validation accuracy.
    """
    if len(rows) < 2:
        return list(rows)
    for row in rows:
        if None in row["validation"]:
            raise RunError(
                f"{row['setting']}: metrics.jsonl of a run holds no validation "
                "accuracy to rank it by: remove the run's directory, and it runs again"
            )
    return sorted(rows, key=lambda row: -statistics.mean(row["validation"]))


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

    def name(self, setting: Mapping[str, str], seed: int) -> str:
        """Returns the name of a run: of version 0.1 where its directory is there."""
        old = sweep_grid.old_run_name(setting, self._grid, seed)
        if sweep_grid.readable(old) and os.path.isdir(self._launcher.workdir / old):
            return old
        return sweep_grid.run_name(setting, self._grid, seed)

    def names(self, setting: Mapping[str, str]) -> list[str]:
        """Returns the names of a setting's runs, one per seed."""
        return [self.name(setting, seed) for seed in range(self._seeds)]

    def run(self, setting: Mapping[str, str], seed: int) -> RunRecord:
        """Returns the trained run of a setting; it runs once, however often asked."""
        name = self.name(setting, seed)
        with self._locks.setdefault(name, threading.Lock()):
            if name not in self.records:
                fields = {**setting, "seed": str(seed)}
                self.records[name] = self._launcher(name, fields, test=False)
            return self.records[name]

    def score(self, setting: Mapping[str, str]) -> float:
        """Returns the mean over the seeds of the best validation accuracy.

        Raises:
            RunError: a run failed, or has no validation accuracy.
        """
        records = [self.run(setting, seed) for seed in range(self._seeds)]
        values = row("", records)["validation"]
        if None in values:
            raise RunError(f"{self.names(setting)[0]} has no validation accuracy")
        return statistics.mean(values)

    def test(self, setting: Mapping[str, str]) -> None:
        """Has the trained runs of a setting read the test split."""

        def job(seed):
            name, fields = self.name(setting, seed), {**setting, "seed": str(seed)}
            self.records[name] = self._launcher(name, fields)

        self._launcher.all([partial(job, seed) for seed in range(self._seeds)])

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
            self.failed.append(self.name(setting, seed))

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

    def ranked_and_tested(self, settings: Sequence[Mapping[str, str]]) -> list[dict]:
        """Returns the table, best setting first, whose runs alone are tested.

        Raises:
            RunError: a run cannot be ranked, or its test failed.
        """
        by_title = {self._title(setting): setting for setting in settings}
        rows = ranked([row(title, self._of(s)) for title, s in by_title.items()])
        chosen = by_title[rows[0]["setting"]]
        self.test(chosen)
        rows[0]["test"] = [record.test_accuracy for record in self._of(chosen)]
        return rows

    def _title(self, setting):
        return ", ".join(varying(setting, self._grid)) or "as is"

    def _of(self, setting):
        return [self.records[name] for name in self.names(setting)]
