"""Grids of runs, searches, and what a signal or a failing run does to them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from vgg_jax.cli import command as command_line
from vgg_jax.cli import settings_check
from vgg_jax.cli import sweep as sweep_command
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import devices, launcher, sweep, sweep_grid
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.sweep_grid import Range

# And of a server where there is one, as in test_study.py.
SERVERS = filter(None, [os.environ.get("VGG_JAX_TEST_DATABASE")])
DATABASES = ["sqlite:///{}/study.db", *SERVERS]
TINY = ["--config.epochs=1", "--config.data.train=train[:128]",
        "--config.model.variant=conv3-8 | conv3-8 |",
        "--config.data.validation=train[128:192]",
        "--config.data.test=test[:64]"]  # fmt: skip


def command(workdir, *arguments):
    given = {argument.partition("=")[0] for argument in arguments}
    tiny = [setting for setting in TINY if setting.partition("=")[0] not in given]
    return [
        *(sys.executable, "-m", "vgg_jax", "sweep", "--config=configs/quickstart.py"),
        *(*tiny, f"--workdir={workdir}", *arguments),
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


def names(grid, seed=0):
    return [sweep_grid.run_name(s, grid, seed) for s in sweep_grid.settings(grid)]


def test_a_workdir_is_named_by_what_varies():
    grid = sweep_grid.parse(["--config.lr=0.1,0.3", "--config.epochs=2"])
    assert names(grid, seed=1) == ["lr=0.1,seed=1", "lr=0.3,seed=1"]


@pytest.mark.parametrize(
    "settings",
    [
        ["--config.data.train=train[:50%],train"],
        ["--config.model.variant=conv3-8 | conv3-8 |,conv3-8 * conv3-8 *,D"],
        ["--config.data.data_dir=a/b,a_b,a\\b"],  # told apart though all become a_b
        [f"--config.model.field_{i}={'x' * i},{'[' * i}" for i in range(1, 9)],
    ],
)
def test_names_are_safe_and_distinct(settings):
    found = names(sweep_grid.parse(settings))
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9._=,+-]{1,200}", name) for name in found)


def test_a_name_of_forty_fields_is_short_and_told_apart():
    grid = {f"model.field_{i}": ["1", "2"] for i in range(40)}
    found = [
        sweep_grid.run_name(dict.fromkeys(grid, "1") | changed, grid, seed)
        for changed in ({}, {"model.field_39": "2"})
        for seed in (0, 1)
    ]
    assert len(set(found)) == 4
    assert max(len(name.encode()) for name in found) == 200
    assert found[0].endswith(",seed=0")


def test_a_directory_of_the_older_version_keeps_its_name(tmp_path):
    grid = sweep_grid.parse(["--config.model.hidden=(8,8),(9,)"])
    made = sweep.Sweep(launcher.Launcher("", tmp_path), grid, seeds=1)
    (tmp_path / "model.hidden=(8,8),seed=0").mkdir()
    found = [made.name(setting, 0) for setting in sweep_grid.settings(grid)]
    assert found == ["model.hidden=(8,8),seed=0", "model.hidden=_9,_,seed=0"]


@pytest.mark.parametrize(
    "wrong",
    [["--lr=3"], ["--config.lr"], ["--config.seed=1,2"], ["--config.lr=0.1..inf"],
     ["--config.lr=nan..1"], ["--config.lr=1", "--config.lr=2"]],
)  # fmt: skip
def test_a_wrong_setting_is_told(wrong):
    with pytest.raises(ConfigError):
        sweep_grid.parse(wrong)


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


def test_the_workdir_of_a_run_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(settings_check, "check", lambda *_, **__: None)
    monkeypatch.setattr(launcher, "_TRAIN", ("false",))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is the workdir of a run"):
        run_command("--config=configs/quickstart.py", f"--workdir={tmp_path}")


def test_pruning_is_for_a_search(tmp_path):
    with pytest.raises(ConfigError, match="--prune .* needs --trials"):
        run_command("--config=quickstart", f"--workdir={tmp_path}", "--prune")


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


class Recorded:
    """A launcher whose runs end at once, with accuracies by their learning rate."""

    validation = {"0.1": [0.5, 0.7], "0.3": [0.8, 0.1], "0.5": []}

    workers, stopping = 1, False

    def __init__(self, workdir):
        self.workdir, self.tested = workdir, []

    def all(self, jobs):
        return [job() for job in jobs]

    def __call__(self, name, fields, *, test=True, stops=None):
        path = self.write(name, self.validation[fields["lr"]])
        if test:
            self.tested.append(name)
            result = {"test": {"accuracy": 0.25}}
            (path / "result.json").write_text(json.dumps(result))
        return RunRecord(path)

    def write(self, name, accuracies):
        """Writes what a run leaves after so many epochs."""
        path = self.workdir / name
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps({"epochs": 2}))
        rows = [
            {"kind": "epoch", "step": epoch, "epoch": epoch, "seconds": 1.0}
            | {"val_accuracy": accuracy}
            for epoch, accuracy in enumerate(accuracies, 1)
        ]
        (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return path


@pytest.mark.parametrize(
    "learning_rates, rows, tested",
    [
        # best by validation, though 0.1 ends better
        (["0.1", "0.3"], [("lr=0.3", 0.8, 0.25), ("lr=0.1", 0.7, None)], "lr=0.3,"),
        (["0.5"], [("as is", None, 0.25)], ""),  # one setting needs no validation
    ],
)
def test_the_best_setting_alone_is_tested(tmp_path, learning_rates, rows, tested):
    runs = Recorded(tmp_path)
    made = sweep.Sweep(runs, {"lr": learning_rates}, seeds=2)
    settings = made.run_all()
    assert not runs.tested
    found = made.ranked_and_tested(settings)
    assert found == [
        {"setting": setting, "validation": [best] * 2, "test": [test] * 2}
        for setting, best, test in rows
    ]
    assert runs.tested == [f"{tested}seed=0", f"{tested}seed=1"]


class Watched(Recorded):
    """Runs of two epochs, in this order, that may be given up after the first."""

    validation = [(0.5, 0.6), (0.3, 0.9), (0.7, 0.8), (0.6, 0.5), (0.4, 0.5),
                  (0.45, 0.9), (0.55, 0.1)]  # fmt: skip

    def __init__(self, workdir):
        super().__init__(workdir)
        self.given_up = []

    def __call__(self, name, fields, *, test=True, stops=None):
        accuracies = self.validation[len(self.given_up)]
        self.given_up.append(stops(RunRecord(self.write(name, accuracies[:1]))))
        if self.given_up[-1]:
            raise launcher.Pruned
        return RunRecord(self.write(name, accuracies))


def test_a_run_below_the_median_is_given_up(tmp_path):
    """The first epochs of five come to 0.3 0.4 0.5 0.6 0.7; 0.45 lags, 0.55 does not.

    The second of the five shows that no run is given up before there are so many.
    """
    runs = Watched(tmp_path)
    search = sweep.Sweep(runs, {"lr": Range(0.01, 0.1)}, seeds=1)
    scored = search.search(7, "c", prune=True)
    assert runs.given_up == [False] * 5 + [True, False]
    assert len(scored) == 6


def test_a_run_without_validation_is_not_ranked(tmp_path):
    made = sweep.Sweep(Recorded(tmp_path), {"lr": ["0.1", "0.5"]}, seeds=1)
    with pytest.raises(RunError, match="lr=0.5: metrics.jsonl"):
        made.ranked_and_tested(made.run_all())


@pytest.mark.slow
def test_a_sweep_runs_resumes_and_compares(tmp_path):
    axis = "--config.data.train=train[:64],train[:128]"  # Orbax reads no path with [
    first = run(tmp_path, axis)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "sweep.json").read_text())
    best, other = (row["setting"] for row in rows)
    assert rows[0]["validation"] >= rows[1]["validation"]
    assert len(rows[0]["test"]) == 1 and rows[1]["test"] == [None]
    assert first.stdout.count("test top-1") == 1
    table = first.stdout.splitlines()[-4:-1]
    assert table[0].endswith("seeds") and table[2].split()[-2:] == ["-", "1"]
    page = (tmp_path / "comparison.html").read_text()
    assert "Where the configs differ" in page and "<td>data.train</td>" in page
    grid = sweep_grid.parse([axis])
    made = sweep.Sweep(launcher.Launcher("", tmp_path), grid, seeds=1)
    untested = tmp_path / made.name({"data.train": other.partition("=")[2]}, 0)
    assert not (untested / "result.json").exists() and "not tested" in page
    assert (tmp_path / made.name({"data.train": best.partition("=")[2]}, 0)).exists()
    # As an older version leaves a sweep: every run is tested.
    (untested / "result.json").write_text(json.dumps({"test": {"accuracy": 1.0}}))
    again = run(tmp_path, axis)
    assert "run " not in again.stdout, again.stdout
    assert json.loads((tmp_path / "sweep.json").read_text()) == rows


@pytest.mark.slow
@pytest.mark.parametrize("database", DATABASES)
def test_two_sweeps_share_a_database_and_one_is_killed(tmp_path, database):
    """With its run, in the middle of it."""
    rates = [f"{i / 100}" for i in range(1, 6)]
    storage = f"--storage={database.format(tmp_path)}"
    runs = tmp_path / f"runs-{uuid4()}"  # names the study
    given = command(runs, f"--config.lr={','.join(rates)}", storage)
    both = [
        subprocess.Popen(
            given, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        for _ in "12"
    ]
    limit = time.monotonic() + 120
    while len(list(runs.glob("*/config.json"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    os.killpg(both[0].pid, signal.SIGKILL)
    both[0].communicate()
    said = both[1].communicate(timeout=300)[0]
    assert both[1].returncode == 0, said
    rows = json.loads((runs / "sweep.json").read_text())
    assert {row["setting"] for row in rows} == {f"lr={rate}" for rate in rates}
    assert len(rows) == len(rates)
    assert all(RunRecord(path).trained for path in runs.glob("lr=*,seed=0"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties runs to cores")
def test_side_by_side_with_one_that_fails(tmp_path):
    """Two at a time; the learning rate of 1e30 diverges, the other run is kept."""
    cores = [f"cpu{core}" for core in sorted(os.sched_getaffinity(0))[:2]]
    hardly = "--config.optimizer.weight_decay=1e-33"  # or it would flip the weights
    devices = f"--devices={','.join(cores)}"
    done = run(tmp_path, "--config.lr=1e30,0.01", hardly, devices)
    assert done.returncode == 1
    assert "lr=1e30,seed=0" in done.stderr and "Traceback" not in done.stderr
    (row,) = json.loads((tmp_path / "sweep.json").read_text())
    assert row["setting"] == "lr=0.01"
    if len(cores) > 1:
        assert "the loss is nan" in (tmp_path / "lr=1e30,seed=0.log").read_text()


PRINTS_ITS_DEVICE = """
import json, os, pathlib, sys
workdir = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
workdir.mkdir()
cores = sorted(os.sched_getaffinity(0))
names = ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
facts = {"cores": cores} | {name: os.environ.get(name) for name in names}
(workdir / "config.json").write_text(json.dumps(facts))
"""


@pytest.fixture
def device(tmp_path, monkeypatch):
    """What a run sees that is launched on a device."""
    (tmp_path / "main.py").write_text(PRINTS_ITS_DEVICE)
    command = (sys.executable, str(tmp_path / "main.py"))
    monkeypatch.setattr(launcher, "_TRAIN", command)
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"):
        monkeypatch.delenv(name, raising=False)

    def seen(option):
        runs = launcher.Launcher("", tmp_path, devices.chosen(option))
        return runs(f"on {option}", {}).config

    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties runs to cores")
def test_a_run_has_a_core_of_its_own(device):
    cores = sorted(os.sched_getaffinity(0))
    tied = device(f"cpu{cores[-1]}")
    assert tied["cores"] == cores[-1:] and tied["JAX_PLATFORMS"] == "cpu"
    free = device("")
    assert free["cores"] == cores and free["JAX_PLATFORMS"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="sched_getaffinity")
def test_a_run_has_a_gpu_of_the_callers(device, monkeypatch):
    monkeypatch.setattr(devices, "seen", lambda: ("gpu", 2))
    assert device("1")["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    seen = device(" 1")
    assert seen["CUDA_VISIBLE_DEVICES"] == "7" and seen["TPU_VISIBLE_CHIPS"] is None


def test_how_a_run_was_killed_is_told(tmp_path, monkeypatch):
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(launcher, "_TRAIN", (sys.executable, "-c", program))
    with pytest.raises(RunError, match="run x was ended by SIGKILL .out of memory"):
        launcher.Launcher("", tmp_path)("x", {})


@pytest.mark.slow
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


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "x.log").mkdir()
    with pytest.raises(RunError, match="x.log cannot be written"):
        launcher.Launcher("", tmp_path, [devices.Device()] * 2)("x", {})


STUCK = """
import sys
from pathlib import Path
from vgg_jax.errors import guarded
from vgg_jax.runs import launcher
program = "import signal, time; signal.signal(2, signal.SIG_IGN); print(7, flush=True)"
launcher._TRAIN = (sys.executable, "-c", program + "; time.sleep(300)")
runs = launcher.Launcher("", Path(sys.argv[1]))
guarded(runs.all, [lambda: runs("stuck", {})])
"""


def test_a_second_signal_ends_a_run_that_is_stuck(tmp_path):
    """In a compilation, say; one within a second is the same wish."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert [process.stdout.readline() for _ in "12"] == ["run stuck\n", "7\n"]
    for wait in (0, 0.1, 1.2):
        time.sleep(wait)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)  # once nobody holds the pipes
    assert process.returncode == 130 and errors.startswith("stopped: ")
    assert not rest and errors.count("\n") == 1
