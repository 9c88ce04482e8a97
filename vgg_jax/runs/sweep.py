"""The runs of a sweep: a grid of settings and seeds, or a search."""

import hashlib
import json
import os
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from vgg_jax.errors import ConfigError, RunError, UserError
from vgg_jax.runs import study, sweep_grid, worker
from vgg_jax.runs.launcher import Launcher, Pruned
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.sweep_grid import Grid, varying

_SEED = "seed"
_STARTUP = 5  # trials that are never stopped early, to compare others with


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
    """The runs of a sweep, of which other processes may do their share.

    Args:
        launcher: starts them.
        grid: what is tried of each field.
        seeds: number of runs of every setting, with seeds 0 ... seeds - 1.
        config: what all runs have in common, for the name of the study.
        storage: of the study (`study.opened`); "": a journal in the workdir.
    """

    def __init__(
        self,
        launcher: Launcher,
        grid: Grid,
        seeds: int,
        config: Any = "",
        storage: str = "",
    ) -> None:
        self._launcher, self._grid, self._seeds = launcher, grid, seeds
        self._config, self._workdir = config, launcher.workdir
        self._storage = storage or str(self._workdir / study.JOURNAL)
        self._stem = self._workdir.name if storage else "sweep"
        self.records: dict[str, RunRecord] = {}
        self.failed: list[str] = []
        self._locks: dict[str, threading.Lock] = {}

    def name(self, setting: Mapping[str, str], seed: int) -> str:
        """Returns the name of a run: of version 0.1 where its directory is there."""
        old = sweep_grid.old_run_name(setting, self._grid, seed)
        if sweep_grid.readable(old) and os.path.isdir(self._workdir / old):
            return old
        return sweep_grid.run_name(setting, self._grid, seed)

    def names(self, setting: Mapping[str, str]) -> list[str]:
        """Returns the names of a setting's runs, one per seed."""
        return [self.name(setting, seed) for seed in range(self._seeds)]

    def run(
        self,
        setting: Mapping[str, str],
        seed: int,
        stops: Callable[[RunRecord], bool] | None = None,
    ) -> RunRecord:
        """Returns the trained run of a setting; it runs once, however often asked."""
        name = self.name(setting, seed)
        with self._locks.setdefault(name, threading.Lock()):
            if name not in self.records:
                fields = {**setting, _SEED: str(seed)}
                self.records[name] = self._launcher(
                    name, fields, test=False, stops=stops
                )
            return self.records[name]

    def score(
        self,
        setting: Mapping[str, str],
        stops: Callable[[RunRecord], bool] | None = None,
    ) -> float:
        """Returns the mean over the seeds of the best validation accuracy.

        Args:
            setting: what to try.
            stops: whether the first run, as far as it is, is given up.

        Raises:
            RunError: a run failed, or has no validation accuracy.
            Pruned: it was given up.
        """
        records = [
            self.run(setting, seed, None if seed else stops)
            for seed in range(self._seeds)
        ]
        values = row("", records)["validation"]
        if None in values:
            raise RunError(f"{self.names(setting)[0]} has no validation accuracy")
        return statistics.mean(values)

    def run_all(self) -> list[dict[str, str]]:
        """Runs the whole grid; returns its settings that have all their runs."""
        settings = sweep_grid.settings(self._grid)
        jobs = [
            {**setting, _SEED: str(seed)}
            for setting in settings
            for seed in range(self._seeds)
        ]
        self._queue("grid", jobs, self._train)
        return [s for s in settings if all(map(self._is_trained, self.names(s)))]

    def _is_trained(self, name: str) -> bool:
        """Whether a run is trained, here or by another process; notes its record."""
        if name not in self.records and name not in self.failed:
            try:
                record = RunRecord(self._workdir / name)
            except RunError:
                return False
            if record.trained:
                self.records[name] = record
        return name in self.records

    def _train(self, setting: Mapping[str, str], seed: int) -> float:
        return self.run(setting, seed).best_validation or 0.0

    def _test(self, setting: Mapping[str, str], seed: int) -> float:
        fields = {**setting, _SEED: str(seed)}
        name = self.name(setting, seed)
        self.records[name] = self._launcher(name, fields)
        return self.records[name].test_accuracy

    def _queue(
        self,
        kind: str,
        jobs: Sequence[Mapping[str, str]],
        do: Callable[[Mapping[str, str], int], float],
        stop_at_failure: bool = False,
    ) -> None:
        """Does jobs, those that other processes do not."""
        identity = {"config": self._config, "fields": self._grid}
        name = f"{self._stem}-{kind}-{_hash(identity)}"
        queue = study.opened(self._storage, name, identity)
        split = lambda job: ({k: job[k] for k in job if k != _SEED}, int(job[_SEED]))
        tested = kind != "grid"

        def is_done(job: Mapping[str, str]) -> bool:
            run = self.name(*split(job))
            return self._is_trained(run) and (not tested or self._has_result(run))

        study.enqueue(queue, jobs, is_done)

        def one(trial: Trial) -> float:
            return do(*split(trial.user_attrs["setting"]))

        def failed(trial: Trial, error: UserError) -> None:
            if stop_at_failure or isinstance(error, ConfigError):
                raise error
            print(f"{error}; the sweep goes on", flush=True)
            self.failed.append(self.name(*split(trial.user_attrs["setting"])))

        self._work(queue, study.queued, one, failed)
        names = [self.name(*split(job)) for job in jobs]
        self.failed += [  # by another process
            n for n in names if n not in self.failed and not self._is_trained(n)
        ]

    def _has_result(self, name: str) -> bool:
        self.records[name] = RunRecord(self._workdir / name)
        return self.records[name].result is not None

    def _work(
        self,
        of: optuna.Study,
        take: Callable[[optuna.Study], Trial | None],
        do: Callable[[Trial], float],
        failed: Callable[[Trial, UserError], None],
    ) -> None:
        """Works on a study until nothing is left, on all devices of this process."""
        own = worker.Worker(of, take, lambda: self._launcher.stopping)

        def works() -> None:
            while trial := own.next():
                try:
                    value = do(trial)
                except Pruned:
                    own.tell(trial, state=TrialState.PRUNED)
                except UserError as error:
                    own.tell(trial, state=TrialState.FAIL)
                    failed(trial, error)
                else:
                    own.tell(trial, value)

        with own.alive():
            self._launcher.all([works] * self._launcher.workers)

    def search(
        self, trials: int, config: str, prune: bool = False
    ) -> list[dict[str, str]]:
        """Runs `trials` settings that Optuna chooses; returns those with a score.

        Args:
            trials: number of settings.
            config: name of the config, part of what the study is of.
            prune: whether a run is given up whose best validation accuracy is below the
                median of the others' at the same epoch.

        Raises:
            ConfigError: the study is another; the first trial's setting is wrong.
            RunError: every trial failed.
        """
        identity = {"config": config, "fields": self._grid, "seeds": self._seeds}
        found = study.opened(self._storage, self._stem, identity)
        found.sampler = optuna.samplers.TPESampler(
            seed=len(found.trials), constant_liar=True
        )
        found.pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)

        def one(trial: Trial) -> float:
            stops = partial(_lags, trial, set()) if prune else None
            return self.score(trial.user_attrs["setting"], stops)

        def failed(trial: Trial, error: UserError) -> None:
            nothing_yet = not study.complete(found)
            if isinstance(error, ConfigError) and nothing_yet:
                raise error
            print(f"{error}; the search goes on", flush=True)

        self._work(found, partial(study.drawn, grid=self._grid, trials=trials), one,
                   failed)  # fmt: skip
        settings = study.complete(found)
        if not settings:
            raise RunError("every run of the search failed: see what they said")
        for setting in settings:  # those of other processes and commands too
            for name in self.names(setting):
                self.records.setdefault(name, RunRecord(self._workdir / name))
        return settings

    def ranked_and_tested(self, settings: Sequence[Mapping[str, str]]) -> list[dict]:
        """Returns the table, best setting first, whose runs alone are tested.

        Raises:
            RunError: a run cannot be ranked, or its test failed.
        """
        by_title = {self._title(setting): setting for setting in settings}
        rows = ranked([row(title, self._of(s)) for title, s in by_title.items()])
        best = by_title[rows[0]["setting"]]
        jobs = [{**best, _SEED: str(seed)} for seed in range(self._seeds)]
        self._queue("test", jobs, self._test, stop_at_failure=True)
        for name in self.names(best):  # another process may have tested it
            self.records[name] = RunRecord(self._workdir / name)
        rows[0]["test"] = [record.test_accuracy for record in self._of(best)]
        return rows

    def _title(self, setting):
        return ", ".join(varying(setting, self._grid)) or "as is"

    def _of(self, setting):
        return [self.records[name] for name in self.names(setting)]


def _lags(trial: Trial, told: set[float], record: RunRecord) -> bool:
    """Reports new epochs of a run to Optuna; returns whether it gives the run up."""
    for epoch, accuracy in zip(*record.column("val_accuracy"), strict=True):
        if epoch not in told:
            told.add(epoch)
            trial.report(accuracy, int(epoch))
    return trial.should_prune()


def _hash(identity: Mapping[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
