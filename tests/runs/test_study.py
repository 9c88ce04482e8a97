"""Studies that several processes work on: grids as queues, and searches."""

import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import study, sweep, worker
from vgg_jax.runs.launcher import Launcher, Pruned
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.sweep_grid import Range

ROOT = Path(__file__).resolve().parents[2]
# Of a server where there is one: VGG_JAX_TEST_DATABASE=postgresql://user@host:port/name
SERVERS = list(filter(None, [os.environ.get("VGG_JAX_TEST_DATABASE")]))
DATABASES = ["sqlite:///{}/study.db", *SERVERS]
STORAGES = ["{}/log", *DATABASES]


class Trained(sweep.Sweep):
    """A sweep whose score has its maximum at lr = 0.01; counts, may be cut short."""

    def __init__(self, workdir, grid, cut_at=None, workers=1, seeds=1, **options):
        launcher = Launcher("", workdir)
        launcher.workers = workers
        super().__init__(launcher, grid, seeds, **options)
        self.settings, self.cut_at = [], cut_at

    def score(self, setting, stops=None):
        self.settings.append(setting)
        if len(self.settings) == self.cut_at:
            raise KeyboardInterrupt
        if setting.get("model.variant") == "E":
            raise RunError("diverged")
        for name in self.names(setting):
            (self._workdir / name).mkdir(exist_ok=True)
            (self._workdir / name / "config.json").write_text('{"epochs": 1}')
        return -abs(float(setting["lr"]) - 0.01)


GRID = {"lr": Range(0.001, 0.1), "model.variant": ["A", "D"]}


def test_a_search_goes_on_with_the_trial_that_was_cut_short(tmp_path):
    cut = Trained(tmp_path, GRID, cut_at=3)
    with pytest.raises(KeyboardInterrupt):
        cut.search(6, "c")
    rest = Trained(tmp_path, GRID)
    tried = rest.search(6, "c")
    assert rest.settings[0] == cut.settings[2]
    assert tried == cut.settings[:2] + rest.settings and len(tried) == 6
    assert all(0.001 <= float(setting["lr"]) <= 0.1 for setting in tried)
    again = Trained(tmp_path, GRID)
    assert again.search(6, "c") == tried and not again.settings
    with pytest.raises(ConfigError, match="seeds"):
        Trained(tmp_path, GRID, seeds=2).search(6, "c")


def test_a_search_survives_settings_that_fail(tmp_path):
    grid = {"lr": Range(0.001, 0.1), "model.variant": ["E"]}
    with pytest.raises(RunError, match="every run"):
        Trained(tmp_path, grid).search(3, "c")


def test_trials_side_by_side_do_not_repeat_one_another(tmp_path):
    """Of 24 whole numbers in 1 ... 100, and then of the last 4 of 28."""
    workers, tried = 8, []
    barrier = threading.Barrier(workers)

    class Together(Trained):
        def score(self, setting, stops=None):
            tried.append(setting["lr"])
            barrier.wait(timeout=60)  # all are under way
            super().score(setting)
            return -abs(int(setting["lr"]) - 60)

    grid = {"lr": Range(1, 100)}
    Together(tmp_path, grid, workers=workers).search(24, "c")
    assert len(tried) == 24 == len(set(tried))
    barrier = threading.Barrier(1)
    assert len(Together(tmp_path, grid).search(28, "c")) == 28 == len(tried)


def test_a_search_of_few_settings_may_repeat_them(tmp_path):
    grid = {"lr": ["0.01", "0.02"], "model.variant": ["A"]}
    assert len(Trained(tmp_path, grid).search(4, "c")) == 4


def test_a_search_survives_a_torn_line(tmp_path):
    """Of its log, as a power cut leaves it; Optuna would write on behind it."""
    grid = {"lr": Range(0.001, 0.1), "model.variant": ["A"]}
    first = Trained(tmp_path, grid).search(3, "c")
    log = tmp_path / study.JOURNAL
    log.write_bytes(log.read_bytes()[:-20])  # the score of the last trial
    again = Trained(tmp_path, grid)
    tried = again.search(4, "c")
    assert again.settings[0] == first[2] and len(tried) == 4
    whole = Trained(tmp_path, grid)
    assert len(whole.search(4, "c")) == 4 and not whole.settings
    log.write_text("not Optuna's\n" + log.read_text())
    with pytest.raises(RunError, match="optuna.log is damaged"):
        whole.search(4, "c")


WORKS = """
import json, sys, time
from vgg_jax.runs import study, worker
storage, name, jobs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
of = study.opened(storage, name, {})
study.enqueue(of, jobs, is_done=lambda job: True)
print("ready", flush=True)
sys.stdin.readline()
own = worker.Worker(of, study.queued)
with own.alive():
    while trial := own.next():
        time.sleep(0.05)
        own.tell(trial, 1.0)
        print(json.dumps(trial.user_attrs["setting"]), flush=True)
"""


def work(storage, tmp_path, jobs, number=1):
    """Returns so many processes that begin to work at the same time, on one study."""
    storage, name = storage.format(tmp_path), str(tmp_path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKS, storage, name, json.dumps(jobs)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(number)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


def done_by(process):
    lines = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0
    return [json.loads(line) for line in lines if line.startswith("{")]


JOBS = [{"lr": str(i), "seed": "0"} for i in range(12)]


@pytest.mark.parametrize("storage", STORAGES)
def test_each_job_is_done_once_by_whoever_is_there(tmp_path, storage):
    """By two processes that begin at the same time, as on two machines."""
    both = work(storage, tmp_path, JOBS, number=2)
    done = [done_by(process) for process in both]
    assert all(done), "one of them had nothing to do"
    assert sorted(sum(done, []), key=str) == sorted(JOBS, key=str)


@pytest.mark.parametrize("storage", DATABASES)
def test_a_database_keeps_a_study(tmp_path, storage):
    """So that another process goes on with what one that was killed left."""
    (first,) = work(storage, tmp_path, JOBS)
    done = [json.loads(first.stdout.readline()) for _ in range(4)]
    first.kill()
    done += [json.loads(line) for line in first.communicate()[0].splitlines()]
    (second,) = work(storage, tmp_path, JOBS)
    rest = done_by(second)
    assert sorted(done + rest, key=str) == sorted(JOBS, key=str)


def test_a_job_whose_run_was_removed_is_queued_again(tmp_path):
    of = study.opened(str(tmp_path / "log"), "s", {})
    jobs = [{"lr": str(i), "seed": "0"} for i in range(3)]
    study.enqueue(of, jobs, is_done=lambda job: True)
    while trial := study.queued(of):
        of.tell(trial, 1.0)
    study.enqueue(of, jobs, is_done=lambda job: job != jobs[1])
    assert study.queued(of).user_attrs["setting"] == jobs[1]
    assert study.queued(of) is None


DIES = """
import os, sys
from vgg_jax.runs import study, worker
of = study.opened(sys.argv[1], "s", {})
own = worker.Worker(of, study.queued)
with own.alive():
    own.next()
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_what_a_dead_process_had_is_given_to_another(tmp_path, how, monkeypatch):
    storage = str(tmp_path / "log")
    of = study.opened(storage, "s", {})
    jobs = [{"lr": "1", "seed": "0"}, {"lr": "2", "seed": "0"}]
    study.enqueue(of, jobs, is_done=lambda job: True)
    other = subprocess.Popen(
        [sys.executable, "-c", DIES, storage],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "begun\n"
    own = worker.Worker(of, study.queued)
    assert own.next().user_attrs["setting"] == jobs[1]
    if how == "killed":
        other.kill()
        other.wait()
    else:  # as on another machine: it lives, or not, and says nothing
        os.kill(other.pid, signal.SIGSTOP)
        monkeypatch.setattr(worker, "_is_dead", lambda worker: False)
        monkeypatch.setattr(worker, "_SILENT", 0.3)
        monkeypatch.setattr(worker, "_POLL", 0.1)
    assert own.next().user_attrs["setting"] == jobs[0]
    other.kill()
    other.communicate()


def test_a_worker_waits_for_what_others_have_under_way(tmp_path, monkeypatch, capsys):
    """And is told, once, and may be stopped."""
    monkeypatch.setattr(worker, "_POLL", 0.05)
    monkeypatch.setattr(worker, "_is_dead", lambda worker: False)
    storage = str(tmp_path / "log")
    of = study.opened(storage, "s", {})
    study.enqueue(of, [{"lr": "1", "seed": "0"}], is_done=lambda job: True)
    first = worker.Worker(of, study.queued)
    trial = first.next()
    asked = iter([False] * 5 + [True])
    waiting = worker.Worker(of, study.queued, lambda: next(asked))
    with pytest.raises(KeyboardInterrupt):
        waiting.next()
    assert capsys.readouterr().out.count("waiting for what runs on") == 1
    first.tell(trial, 1.0)
    assert waiting.next() is None


def test_a_storage_that_cannot_be_is_told(tmp_path):
    with pytest.raises(ConfigError, match="needs psycopg"):
        study.opened("postgresql://localhost/none", "s", {})
    with pytest.raises(RunError, match="cannot be used"):
        study.opened(f"sqlite:///{tmp_path}/none/study.db", "s", {})
    with pytest.raises(RunError, match="cannot be used"):
        study.opened(str(tmp_path / "none" / "log"), "s", {})


CLIMBS = """
import json, sys, time
from pathlib import Path
workdir = Path(sys.argv[-1].removeprefix("--workdir="))
workdir.mkdir()
(workdir / "config.json").write_text(json.dumps({"epochs": 100}))
for epoch in range(1, 101):
    row = {"kind": "epoch", "step": epoch, "epoch": epoch, "seconds": 1.0,
           "val_accuracy": epoch / 100}
    with open(workdir / "metrics.jsonl", "a") as log:
        log.write(json.dumps(row) + "\\n")
    time.sleep(0.02)
"""


@pytest.mark.parametrize("given_up", [True, False])
def test_a_run_is_given_up_as_it_goes(tmp_path, monkeypatch, given_up):
    from vgg_jax.runs import launcher

    monkeypatch.setattr(launcher, "_LOOK", 0.1)
    monkeypatch.setattr(launcher, "_TRAIN", (sys.executable, "-c", CLIMBS))
    seen = []

    def stops(record):
        seen.append(len(record.epochs))
        return given_up and len(record.epochs) > 5

    run = partial(Launcher("", tmp_path), "x", {}, stops=stops)
    if given_up:
        with pytest.raises(Pruned):
            run()
        assert 5 < len(RunRecord(tmp_path / "x").epochs) < 100
    else:
        assert len(run().epochs) == 100 and seen[-1] > seen[0]
