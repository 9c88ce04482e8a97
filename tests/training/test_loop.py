"""Runs end to end on real images: resuming, stopping, killing, finishing."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import default
from vgg_jax import memory
from vgg_jax.data import batches, datasets, on_device
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import checkpoint, checkpoint_record, metric_log
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.training import loop, opening, recipe, session, step
from vgg_jax.training.config import resolve
from vgg_jax.training.interrupt import Interrupt

ROOT = Path(__file__).resolve().parents[2]


def tiny(**fields):
    """Three epochs of 4 steps; the plateau drops after the second."""
    config = default.get_config()
    config.epochs = 3
    config.batch_size = 64
    config.eval_batch_size = 77
    config.data.name = "cifar10_sample"
    config.data.train = "train[:300]"
    config.data.validation = "train[300:400]"
    config.data.test = "test[:150]"
    config.augment.crop = 2
    config.augment.flip = "alternating"
    config.model.variant = "conv3-8 | conv1-8 | conv3-8 |"
    config.model.batch_norm = True
    config.model.hidden = (32,)
    config.model.dtype = "float32"  # compiled once for all tests (`backend.configure`)
    config.schedule.min_delta = 10.0  # no epoch but the first improves by that
    config.log.every_steps = 1
    config.ema_decay = 0.5
    config.update_from_flattened_dict(fields)
    return config


def run(config, workdir):
    return loop.train(config, workdir, Console(quiet=True))


def stop_after(monkeypatch, calls):
    class StopAfter(Interrupt):
        asked = 0

        def __call__(self):
            self.asked += 1
            if self.asked == calls:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__()

    monkeypatch.setattr(opening, "Interrupt", StopAfter)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its directory and its result."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(tiny(), workdir)


def crc(workdir):
    """CRC-32 of every array of the newest checkpoint, as it was when saved."""
    directory = workdir / "checkpoints"
    newest = directory / str(checkpoint_record.latest(directory))
    return checkpoint_record.read(newest).crc32


def epochs(workdir):
    return [row for row in metric_log.read(workdir) if row["kind"] == "epoch"]


def numbers(rows):
    return [
        {k: v for k, v in row.items() if "second" not in k}  # all but timings
        for row in rows
    ]


def test_a_run_leaves_its_record(whole):
    workdir, result = whole
    assert RunRecord(workdir).result == result
    assert result["test"]["count"] == 150
    confusion = np.array(result["test"]["confusion"])
    assert confusion.sum() == 150
    assert result["test"]["accuracy"] == pytest.approx(np.trace(confusion) / 150)
    rows = epochs(workdir)
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01, 0.01, 0.001])
    assert list((workdir / "tensorboard").glob("events*"))


def test_a_finished_run_is_left_alone(whole):
    workdir, result = whole
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert run(tiny(), workdir) == result
    after = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert after == before  # so a read-only disk will do


@pytest.mark.slow
def test_trained_first_and_tested_later(whole, tmp_path, monkeypatch):
    """Training alone reads no test split, and says nothing of an earlier test."""
    evaluated, evaluate = [], session.Session.evaluate
    console = Console(record=True, width=500, file=io.StringIO())

    def noted(self, name, variables):
        evaluated.append(name)
        return evaluate(self, name, variables)

    monkeypatch.setattr(session.Session, "evaluate", noted)
    assert loop.train(tiny(), tmp_path, console, test=False) == {}
    assert evaluated == ["validation"] * 3
    left = {path.name for path in tmp_path.iterdir()}
    assert not {"result.json", "gallery.npz", "report.html"} & left
    best = max(row["val_accuracy"] for row in epochs(whole[0]))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "opened", None)  # nothing is left to train
        for workdir in (tmp_path, whole[0]):
            assert loop.train(tiny(), workdir, console, test=False) == {}
    text = console.export_text()
    assert text.count(f"is trained; best validation top-1 {100 * best:.2f}%") == 3
    assert "test top-1" not in text
    assert run(tiny(), tmp_path)["test"] == whole[1]["test"]
    assert crc(tmp_path) == crc(whole[0])


# Questions asked before the signal: from the first epoch to after the plateau's drop.
@pytest.mark.parametrize(
    "calls", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 14, 23))]
)
def test_resumed_equals_uninterrupted(calls, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, calls)
        with pytest.raises(loop.Stopped) as stopped:
            run(tiny(), tmp_path)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    result = run(tiny(), tmp_path)
    assert result["test"] == whole[1]["test"]
    assert crc(tmp_path) == crc(whole[0])
    assert numbers(metric_log.read(tmp_path)) == numbers(metric_log.read(whole[0]))


# What else a state may hold: a velocity in bfloat16; the speedrun's, and Muon's.
STATES = [
    {"optimizer.state_dtype": "bfloat16"},
    {"model.variant": "conv3-54 | conv3-8 |", "model.whiten": True,
     "model.norm_scale": False, "lookahead": 0.95, "ema_decay": 0.0,
     "optimizer.muon": 0.4, "model.dropout": 0.5},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fields", STATES, ids=["bfloat16", "speedrun"])
def test_all_of_a_state_is_resumed(fields, tmp_path, monkeypatch):
    config = tiny(**fields)
    run(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(loop.Stopped):
        stop_after(patch, 7)
        run(config, tmp_path / "stopped")
    run(config, tmp_path / "stopped")
    assert crc(tmp_path / "stopped") == crc(tmp_path / "whole")


def test_another_config_is_refused_with_its_differences(whole):
    with pytest.raises(ConfigError, match=r"lr: 0.01 -> 0.02.*workdir"):
        run(tiny(lr=0.02), whole[0])


def test_operational_fields_may_change(whole):
    fields = {"checkpoint.minutes": 3.0, "log.every_steps": 7, "data.stream": True}
    assert run(tiny(**fields), whole[0]) == whole[1]


@pytest.mark.parametrize(
    "damage",
    [
        "flip",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("truncate", "remove")),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "result.json").unlink()
    files = [p for p in (tmp_path / "checkpoints" / "15").rglob("*") if p.is_file()]
    target = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage == "remove":
        target.unlink()
    else:
        target.write_bytes(
            content if damage == "flip" else content[: len(content) // 2]
        )
    console = Console(record=True, width=500, file=io.StringIO())
    result = loop.train(tiny(), tmp_path, console)
    assert "Going on from 10 instead" in console.export_text()
    assert result["test"] == whole[1]["test"]
    assert list((tmp_path / "damaged").iterdir())


def test_the_best_epoch_is_tested_and_replaced_if_damaged(
    whole, tmp_path, rewrite_record
):
    """Metrics are written by hand, so that the first of the two kept is the best."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "result.json").unlink()
    for number, accuracy in ((10, 0.9), (15, 0.1)):
        rewrite_record(tmp_path, number, metrics={"loss": 1.0, "accuracy": accuracy})
    assert run(tiny(), tmp_path)["epoch"] == 2
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "10" / "state")
    assert run(tiny(), tmp_path)["epoch"] == 3
    assert [p.name for p in (tmp_path / "damaged").iterdir()] == ["10-0"]


@pytest.mark.parametrize(
    "monitor, best", [("accuracy", 2), ("loss", 3)], ids=["accuracy", "loss"]
)
def test_the_best_checkpoint_is_kept_with_the_last_two(monitor, best, tmp_path):
    metrics = {  # by epoch; ties go to the later one
        1: {"accuracy": 0.5, "loss": 0.3},
        2: {"accuracy": 0.5, "loss": 0.4},
        3: {"accuracy": 0.4, "loss": 0.2},
        4: {"accuracy": 0.3, "loss": 0.6},
        5: {"accuracy": 0.2, "loss": 0.7},
        6: {"accuracy": 0.1, "loss": 0.9},
    }
    dataset = datasets.load(**tiny().data)
    built = recipe.build(resolve(tiny()), dataset, steps_per_epoch=4)
    init = jax.jit(partial(step.init, built, seed=0, image_shape=(32, 32, 3)))
    state = init()
    manager = checkpoint.Checkpoints(tmp_path, monitor=monitor)
    marked = [
        epoch
        for epoch, values in metrics.items()
        if manager.save(state.replace(epochs=np.int32(epoch)), values)
    ]
    assert manager.best() == best == marked[-1]
    manager.close()
    kept = {int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()}
    assert kept == {best, 5, 6}
    again = checkpoint.Checkpoints(tmp_path, monitor=monitor)
    assert int(again.restore_best(state).epochs) == best
    assert not again.save(state.replace(epochs=np.int32(7)), metrics[6])
    again.close()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(RunError, match=r"at step \d+ .*last good checkpoint.*lr"):
        run(tiny(lr=1e30, **{"optimizer.weight_decay": 0.0}), tmp_path)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("calls", [pytest.param(None, marks=pytest.mark.slow), 3])
def test_steps_that_are_dispatched_ahead_change_nothing(
    calls, whole, tmp_path, monkeypatch
):
    """As on an accelerator, whose metrics are read some steps later; stopped or not."""
    monkeypatch.setattr(loop, "IN_FLIGHT", {"cpu": 4})
    if calls:
        with monkeypatch.context() as patch, pytest.raises(loop.Stopped):
            stop_after(patch, calls)
            run(tiny(), tmp_path)
    run(tiny(), tmp_path)
    assert crc(tmp_path) == crc(whole[0])
    assert numbers(metric_log.read(tmp_path)) == numbers(metric_log.read(whole[0]))


@pytest.mark.parametrize("minutes, saved", [(1e-9, [1, 2, 3, 4, 5]), (60.0, [5])])
def test_saves_inside_an_epoch(minutes, saved, tmp_path, monkeypatch):
    """Of four steps, and the end; a run goes on from the third as if not stopped."""
    numbers_, save = [], checkpoint.Checkpoints.save

    def noted(self, state, *arguments, **keywords):
        numbers_.append(checkpoint.number(state))
        return save(self, state, *arguments, **keywords)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", noted)
    config = tiny(epochs=1, **{"checkpoint.minutes": minutes})
    run(config, tmp_path)
    assert numbers_ == saved


def test_weights_that_are_not_finite_are_not_saved(whole, tmp_path, monkeypatch):
    """What was saved before is named, and the same command goes on from there."""
    train_epoch = loop._train_epoch

    def poisoned(run_session, state):
        state = train_epoch(run_session, state)
        if state.epochs != 1:
            return state
        return state.replace(params=jax.tree.map(lambda w: w * np.nan, state.params))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", poisoned)
        with pytest.raises(RunError, match="not finite.*last good .*checkpoints/5"):
            run(tiny(), tmp_path)
    run(tiny(), tmp_path)
    assert crc(tmp_path) == crc(whole[0])


@pytest.mark.slow
def test_a_run_without_validation(tmp_path):
    fields = {"data.validation": "none", "test_with": "last", "epochs": 1}
    for name in ("plateau", "cosine"):
        schedule = {"schedule.name": name, "schedule.min_delta": 1e-4}
        if name == "plateau":
            schedule["schedule.monitor"] = "train_loss"
        result = run(tiny(**fields, **schedule), tmp_path / name)
        assert result["checkpoint"] == "last"
        assert "val_loss" not in epochs(tmp_path / name)[0]


@pytest.mark.slow
def test_streaming_trains_the_same(whole, tmp_path):
    """Down to every array of the last checkpoint."""
    result = run(tiny(**{"data.stream": True}), tmp_path)
    assert result["test"] == whole[1]["test"]
    assert crc(tmp_path) == crc(whole[0])
    assert numbers(metric_log.read(tmp_path)) == numbers(metric_log.read(whole[0]))


@pytest.fixture
def compiled():
    """The names of what XLA compiles."""
    names = []

    def heard(event, seconds, fun_name="", **_):
        del seconds
        if event.endswith("backend_compile_duration"):
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield names
    jax.monitoring.unregister_event_duration_listener(heard)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param(
            {"model.whiten": True, "model.variant": "conv3-54 | conv3-8 |"},
            marks=pytest.mark.slow,
        ),
        pytest.param({"data.stream": True}, marks=pytest.mark.slow),
        pytest.param({"model.frozen": ("conv1_1",)}, marks=pytest.mark.slow),
    ],
    ids=lambda fields: next(iter(fields), "plain"),
)
def test_the_step_is_compiled_once(fields, compiled, tmp_path, monkeypatch):
    """Not again where an epoch ends, as when its state were placed another way.

    And what a thread compiles meanwhile is what the first update runs, resumed or not.
    """
    with monkeypatch.context() as patch, pytest.raises(RunError, match="resumes"):
        stop_after(patch, 3)
        run(tiny(epochs=2, **fields), tmp_path)
    assert compiled.count("jit(train_step)") == 1
    run(tiny(epochs=2, **fields), tmp_path)
    assert compiled.count("jit(train_step)") == 2


@pytest.mark.slow
def test_stages_computed_again_train_the_same(whole, tmp_path):
    """And a run may go on so: the last bits are the same."""
    run(tiny(**{"model.remat": "stage"}), tmp_path)
    assert crc(tmp_path) == crc(whole[0])


@pytest.mark.slow
def test_images_on_the_device_train_the_same(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(on_device, "fits", lambda split, mesh: True)
    run(tiny(), tmp_path)
    assert crc(tmp_path) == crc(whole[0])


@pytest.mark.slow
def test_a_kept_remainder_shows_every_image(tmp_path):
    run(tiny(remainder="keep", epochs=1), tmp_path)
    assert epochs(tmp_path)[0]["step"] == 5  # 300 = 4 * 64 + 44


FULL_DISK = """
import resource, sys
sys.path[:0] = [{root!r}, {tests!r}]
from vgg_jax.cli import command
from vgg_jax.training import loop
end_epoch = loop._end_epoch
def then_full(session, state):
    state = end_epoch(session, state)
    session.checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    return state
loop._end_epoch = then_full
command.main(["train", "--config=" + sys.argv[1], "--workdir=" + sys.argv[2]])
"""


@pytest.mark.slow
def test_a_full_disk_loses_nothing(whole, tmp_path):
    """After the first epoch no file may grow beyond 20 kB. It is told in one line.

    Orbax alone logs hundreds, from each of its threads.
    """
    config, workdir = tmp_path / "config.py", tmp_path / "run"
    config.write_text("import test_loop\nget_config = lambda: test_loop.tiny()\n")
    code = FULL_DISK.format(root=str(ROOT), tests=str(ROOT / "tests" / "training"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(config), str(workdir)],
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert "could not be written" in line and "good one is 5" in line
    assert run(tiny(), workdir)["test"] == whole[1]["test"]
    assert crc(workdir) == crc(whole[0])


SLOW_SAVER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from vgg_jax import backend
backend.configure()
import test_loop
config = test_loop.tiny(**{{"checkpoint.minutes": 1e-9}})
test_loop.run(config, Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "signum", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_killed_process_resumes(signum, whole, tmp_path):
    """Saves after every step, so that a kill at any moment hits a checkpoint."""
    code = SLOW_SAVER.format(root=str(ROOT), tests=str(ROOT / "tests" / "training"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while checkpoint_record.latest(tmp_path / "checkpoints") is None:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode != 0
    result = run(tiny(), tmp_path)
    assert result["test"] == whole[1]["test"]
    assert crc(tmp_path) == crc(whole[0])


@pytest.mark.parametrize("short, steps", [(False, loop._SETTLING), (True, 5)])
def test_memory_is_given_back(short, steps, tmp_path, monkeypatch):
    """After the first steps, or each if it is short, an epoch, validation, the test."""
    calls = []
    monkeypatch.setattr(memory, "give_back", lambda: calls.append(1))
    monkeypatch.setattr(memory, "is_short", lambda: short)
    config = tiny(epochs=1, batch_size=60)  # five steps
    run(config, tmp_path / "run")
    assert len(calls) == steps + 3


def test_two_steps_of_jit_donate_their_state():
    """The state's memory is given to the next state, not copied."""
    dataset = datasets.load(**tiny().data)
    built = recipe.build(resolve(tiny()), dataset, steps_per_epoch=4)
    init = partial(step.init, built, seed=0, image_shape=(32, 32, 3))
    state = jax.eval_shape(init)
    batch = next(
        batches.training(
            dataset.train, seed=0, batch_size=8, epoch=0, start=0, remainder="drop"
        )
    )
    train_step, _ = step.compiled(built)
    text = train_step.lower(state, batch).as_text()
    count = len(jax.tree.leaves(state))
    assert text.count("tf.aliasing_output") == count
