"""Grids of runs, searches, and what a signal or a failing run does to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vgg_jax.cli import command as command_line
from vgg_jax.cli import sweep as sweep_command
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import launcher, sweep, sweep_grid
from vgg_jax.runs.optuna_search import search
from vgg_jax.runs.sweep_grid import Range

TINY = ["--config.epochs=1", "--config.data.train=train[:128]",
        "--config.schedule.warmup_epochs=0.0",
        "--config.model.variant=conv3-8 | conv3-8 |",
        "--config.data.validation=train[128:192]",
        "--config.data.test=test[:64]"]  # fmt: skip


def command(workdir, *arguments):
    return [
        *(sys.executable, "-m", "vgg_jax", "sweep", "--config=configs/quickstart.py"),
        *(*TINY, f"--workdir={workdir}", *arguments),
    ]


def run_command(*arguments):
    """What `vgg sweep` does, its errors raised."""
    options, settings = command_line.parser_of("sweep").parse_known_args(arguments)
    options.settings = settings
    sweep_command.run(options)


def run(workdir, *arguments):
    return subprocess.run(command(workdir, *arguments), capture_output=True, text=True)


def test_the_grid_is_the_product():
    grid = sweep_grid.parse(["--config.lr=0.1,0.3", "--config.model.hidden=(8,8),(9,)"])
    settings = sweep_grid.settings(grid)
    assert len(settings) == 4
    assert settings[0] == {"lr": "0.1", "model.hidden": "(8,8)"}
    assert settings[-1] == {"lr": "0.3", "model.hidden": "(9,)"}


def test_a_workdir_is_named_by_what_varies():
    grid = sweep_grid.parse(["--config.lr=0.1,0.3", "--config.epochs=2"])
    assert sweep_grid.run_name({"lr": "0.3", "epochs": "2"}, grid, 1) == "lr=0.3,seed=1"


@pytest.mark.parametrize("wrong", ["--lr=3", "--config.lr", "--config.seed=1,2"])
def test_a_wrong_setting_is_told(wrong):
    with pytest.raises(ConfigError):
        sweep_grid.parse([wrong])


@pytest.mark.parametrize("wrong", [["--seeds=0"], ["--trials=-1"], ["--seeds=-2"]])
def test_a_wrong_number_is_told(tmp_path, wrong):
    with pytest.raises(ConfigError, match="or more"):
        run_command("--config=configs/quickstart.py", f"--workdir={tmp_path}", *wrong)


def test_a_workdir_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="--workdir"):
        run_command("--config=configs/quickstart.py", f"--workdir={tmp_path / 'file'}")


def test_a_config_that_is_not_there_begins_no_run(tmp_path):
    with pytest.raises(ConfigError, match="there is no file configs/nope.py"):
        run_command("--config=configs/nope.py", f"--workdir={tmp_path / 'sweep'}")
    assert not list(tmp_path.iterdir())


def test_a_wrong_field_begins_no_second_run(tmp_path):
    done = run(tmp_path, "--config.lrr=1,2")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stdout.count("run lrr=") == 1


def test_what_is_ignored_stays_ignored():
    """nohup's SIGHUP."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        raised = launcher.Launcher("", Path("."), []).all(
            [lambda: signal.getsignal(signal.SIGHUP)]
        )
    finally:
        signal.signal(signal.SIGHUP, old)
    assert raised == [signal.SIG_IGN]


def test_a_range_is_for_a_search():
    grid = sweep_grid.parse(["--config.lr=0.01..0.1", "--config.epochs=1..4"])
    assert grid == {
        "lr": Range(0.01, 0.1),
        "epochs": Range(1, 4),
    }
    with pytest.raises(ConfigError, match="--trials"):
        sweep_grid.settings(grid)
    with pytest.raises(ConfigError, match="empty range"):
        sweep_grid.parse(["--config.lr=0.1..0.01"])


def test_best_validation_first():
    rows = [{"setting": "a", "validation": [0.5, 0.7], "test": [0.9, 0.9]},
            {"setting": "b", "validation": [0.7, 0.8], "test": [0.1, 0.1]}]  # fmt: skip
    assert [row["setting"] for row in sweep.ranked(rows)] == ["b", "a"]


def test_a_sweep_runs_resumes_and_compares(tmp_path):
    lr = "--config.lr=0.01,0.02"
    first = run(tmp_path, lr)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert len(rows) == 2 and all(len(row["test"]) == 1 for row in rows)
    assert first.stdout.splitlines()[-4].endswith("seeds")
    page = (tmp_path / "comparison.html").read_text()
    assert "Where the configs differ" in page and "<td>lr</td>" in page
    again = run(tmp_path, lr)
    assert again.stdout.count("is finished") == 2
    assert json.loads((tmp_path / "sweep.json").read_text()) == rows


def test_side_by_side_with_one_that_fails(tmp_path):
    """Two at a time; the learning rate of 1e30 diverges, the other run is kept."""
    done = run(tmp_path, "--config.lr=1e30,0.01", "--devices=0,1")
    assert done.returncode == 1
    assert "lr=1e30,seed=0" in done.stderr and "Traceback" not in done.stderr
    (row,) = json.loads((tmp_path / "sweep.json").read_text())
    assert row["setting"] == "lr=0.01"
    assert "the loss is nan" in (tmp_path / "lr=1e30,seed=0.log").read_text()


PRINTS_ITS_CORES = """
import json, os, pathlib, sys
workdir = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
workdir.mkdir()
cores = sorted(os.sched_getaffinity(0))
facts = {"cores": cores, "platform": os.environ.get("JAX_PLATFORMS")}
(workdir / "config.json").write_text(json.dumps(facts))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties runs to cores")
def test_a_run_has_a_core_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "main.py").write_text(PRINTS_ITS_CORES)
    command = (sys.executable, str(tmp_path / "main.py"))
    monkeypatch.setattr(launcher, "_TRAIN", command)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    cores = sorted(os.sched_getaffinity(0))
    tied = launcher.Launcher("", tmp_path, [f"cpu{cores[-1]}"])
    assert tied("one", {}).config == {"cores": cores[-1:], "platform": "cpu"}
    free = launcher.Launcher("", tmp_path)
    assert free("all", {}).config == {"cores": cores, "platform": None}


@pytest.mark.parametrize("wrong", ["cpu9999", "cpu", "CPU0", "cpu-1", "cpu\u00b2"])
def test_a_core_that_is_not_there_is_told(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)
    with pytest.raises(ConfigError, match="the cores here are cpu0,cpu1"):
        launcher.Launcher("", tmp_path, launcher.devices(f"cpu0, {wrong}"))
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(ConfigError, match="only Linux"):
        launcher.Launcher("", tmp_path, ["cpu0"])


def test_a_signal_reaches_the_run_once_and_saves_it(tmp_path):
    long = [word for word in command(tmp_path) if "epochs=1" not in word]
    process = subprocess.Popen(
        [*long, "--config.epochs=1000"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    rows = tmp_path / "seed=0" / "metrics.jsonl"
    limit = time.monotonic() + 60
    while not (rows.exists() and rows.read_text()) and time.monotonic() < limit:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors
    assert "saved; the same command resumes" in errors  # said by the run itself
    assert any((tmp_path / "seed=0" / "checkpoints").iterdir())


class Trained:
    """A score with its maximum at lr = 0.01; counts, and may be cut short."""

    def __init__(self, cut_at=None):
        self.settings, self.cut_at = [], cut_at

    def __call__(self, setting):
        self.settings.append(setting)
        if len(self.settings) == self.cut_at:
            raise KeyboardInterrupt
        if setting["model.variant"] == "E":
            raise RunError("diverged")
        return -abs(float(setting["lr"]) - 0.01)


def one_by_one(jobs):
    for job in jobs:
        job()


def test_a_search_goes_on_with_the_trial_that_was_cut_short(tmp_path):
    pytest.importorskip("optuna", reason="pip install optuna")
    grid = {"lr": Range(0.001, 0.1), "model.variant": ["A", "D"]}
    cut = Trained(cut_at=3)
    with pytest.raises(KeyboardInterrupt):
        search(grid, 6, cut, one_by_one, tmp_path, {"seeds": 1})
    rest = Trained()
    tried = search(grid, 6, rest, one_by_one, tmp_path, {"seeds": 1})
    assert rest.settings[0] == cut.settings[2]
    assert tried == cut.settings[:2] + rest.settings and len(tried) == 6
    assert all(0.001 <= float(setting["lr"]) <= 0.1 for setting in tried)
    assert search(grid, 6, None, one_by_one, tmp_path, {"seeds": 1}) == tried
    with pytest.raises(ConfigError, match="seeds"):
        search(grid, 6, None, one_by_one, tmp_path, {"seeds": 2})


def test_a_search_survives_settings_that_fail(tmp_path):
    pytest.importorskip("optuna", reason="pip install optuna")
    grid = {"lr": Range(0.001, 0.1), "model.variant": ["E"]}
    with pytest.raises(RunError, match="every run"):
        search(grid, 3, Trained(), one_by_one, tmp_path, {})


def test_without_optuna_the_search_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="pip install optuna"):
        search({}, 1, Trained(), one_by_one, tmp_path, {})
