"""A run whose files were damaged, whose data changed, whose output went away."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from rich.console import Console

from configs import default
from vgg_jax.data import image_folder
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import checkpoint_record, manifest, metric_log
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.training import loop, opening, score
from vgg_jax.training.interrupt import Interrupt

ROOT = Path(__file__).resolve().parents[2]


def tiny(**fields):
    """Two epochs of 3 steps."""
    config = default.get_config()
    config.epochs = 2
    config.batch_size = 32
    config.data.name = "cifar10_sample"
    config.data.train = "train[:100]"
    config.data.validation = "train[100:150]"
    config.data.test = "test[:50]"
    config.model.variant = "conv3-8 | conv3-8 |"
    config.model.hidden = (16,)
    config.model.dtype = "float32"
    config.log.every_steps = 1
    config.update_from_flattened_dict(fields)
    return config


def run(config, workdir):
    """Returns the result, and what was said."""
    console = Console(record=True, width=1000, file=io.StringIO())
    return loop.train(config, workdir, console), console.export_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run: its directory and its result."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(tiny(), workdir)[0]


@pytest.fixture
def copy(whole, tmp_path):
    """A copy that is trained, and has not been tested yet."""
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path / "run"


def epochs(workdir):
    return [row["epoch"] for row in RunRecord(workdir).epochs]


ROWS = {
    "flipped": lambda text: text.replace('"epoch": 1', '"epoch": 3', 1),
    "garbage": lambda text: "\xff\x00\n" + text,
    "no kind": lambda text: '{"step": 1}\n' + text,
    "no sum": lambda text: text.replace('"crc32"', '"crc33"', 1),
    "a list": lambda text: "[1, 2]\n" + text,
    "no seconds": lambda text: '{"kind": "epoch", "step": 3, "epoch": 1}\n' + text,
}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=[pytest.mark.slow] * (way in ("a list", "garbage")))
        for way in ROWS
    ],
)
def test_damaged_rows_are_told_and_kept_aside(way, copy, whole):
    file = copy / "metrics.jsonl"
    damaged = ROWS[way](file.read_text()).encode("latin-1")
    file.write_bytes(damaged)
    result, said = run(tiny(), copy)
    assert result["test"] == whole[1]["test"]
    assert "metrics.jsonl: 1 damaged lines are left out" in said
    assert (copy / "damaged" / "metrics.jsonl-0").read_bytes() == damaged
    assert result["set_aside"] == ["metrics.jsonl-0"]
    assert ("rows of epochs 1 are missing" in said) == (way == "flipped")


@pytest.mark.parametrize("finished", [True, False])
def test_missing_rows_are_told(finished, copy, whole):
    if finished:
        shutil.copy(whole[0] / "result.json", copy)
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"kind": "epoch", "step": 3' not in line]
    (copy / "metrics.jsonl").write_text("".join(kept))
    result, said = run(tiny(), copy)
    assert "the rows of epochs 1 are missing" in said
    assert result["test"] == whole[1]["test"] and epochs(copy) == [2]


CONFIG = {
    "removed": Path.unlink,
    "emptied": lambda file: file.write_text(""),
    "flipped": lambda file: file.write_text(
        file.read_text().replace('"lr": 0.01', '"lr": 0.03')
    ),
}


@pytest.mark.parametrize("way", CONFIG)
def test_a_lost_config_is_known_from_the_checkpoint(way, copy, whole):
    CONFIG[way](copy / "config.json")
    with pytest.raises(ConfigError, match=r"lr: 0.01 -> 0.02"):
        run(tiny(lr=0.02), copy)
    result, said = run(tiny(), copy)
    assert ("config.json was damaged" in said) == (way != "removed")
    assert result["test"] == whole[1]["test"]
    assert RunRecord(copy).config == RunRecord(whole[0]).config


@pytest.mark.parametrize("text", ["", "[]", '{"test": {}, "crc32": 1}'])
def test_a_damaged_result_is_tested_again(text, copy, whole):
    (copy / "result.json").write_text(text)
    with pytest.raises(RunError, match="result.json is damaged .*run the command"):
        RunRecord(copy)
    result, said = run(tiny(), copy)
    assert "result.json is damaged" in said and "is tested again" in said
    assert result["test"] == whole[1]["test"]
    assert RunRecord(copy).result == result
    assert (copy / "damaged" / "result.json-0").read_text() == text


def test_a_damaged_result_does_not_stop_a_sweep(copy):
    """Whose command trains only; it used to name itself as the remedy."""
    (copy / "result.json").write_text("{")
    loop.train(tiny(), copy, Console(quiet=True), test=False)
    assert (copy / "damaged" / "result.json-0").exists()


def test_a_run_is_not_ranked_by_what_is_left_of_its_rows(copy):
    file = copy / "metrics.jsonl"
    file.write_text(file.read_text().replace('"epoch": 1', '"epoch": 3', 1))
    with pytest.raises(RunError, match="damaged lines .*Remove .* to train and rank"):
        loop.train(tiny(), copy, Console(quiet=True), test=False)


def test_a_sum_that_is_gone_is_damage(copy, whole):
    text = (whole[0] / "result.json").read_text()
    (copy / "result.json").write_text(text.replace("crc32", "crc33"))
    with pytest.raises(RunError, match="its CRC-32 is missing"):
        RunRecord(copy)


def test_a_config_that_nothing_confirms_is_said(copy):
    """Of a version whose checkpoints did not keep it."""
    for number in (4, 8):
        record = copy / "checkpoints" / str(number) / "record" / "metadata"
        kept = json.loads(record.read_text()) | {"config": {}}
        record.write_text(json.dumps(kept))
        manifest.write(record.parents[1])
    (copy / "config.json").write_text("{")
    said = run(tiny(), copy)[1]
    assert "nothing is there to compare it with" in said
    assert (copy / "damaged" / "config.json-0").read_text() == "{"


def test_a_page_that_a_kill_prevented_is_made(copy, whole):
    shutil.copy(whole[0] / "result.json", copy)
    (copy / "report.html").unlink()
    assert f"report: {copy / 'report.html'}" in run(tiny(), copy)[1]
    assert (copy / "report.html").exists()


def test_a_result_says_that_another_best_was_tested(copy, rewrite_record):
    """Checkpoint 4, after the first epoch, is made the best, and then torn."""
    for number, accuracy in ((4, 0.9), (8, 0.1)):
        rewrite_record(copy, number, metrics={"loss": 1.0, "accuracy": accuracy})
    (copy / "checkpoints" / "4" / "record" / "metadata").unlink()
    result, said = run(tiny(), copy)
    assert "checkpoint 4: record/metadata is missing" in said
    assert result["epoch"] == 2 and result["set_aside"] == ["4-0"]


def test_images_that_are_others_are_refused(copy, rewrite_record):
    """By what the checkpoints say that the run was trained on."""
    for number in (4, 8):
        data = checkpoint_record.read(copy / "checkpoints" / str(number)).data
        assert data["train"]["count"] == 100
        train = {**data["train"], "count": 144}
        rewrite_record(copy, number, data={**data, "train": train})
    files = [path for path in copy.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(ConfigError, match="other images .*144.* -> .*100"):
        run(tiny(), copy)
    assert {path: path.read_bytes() for path in before} == before


def test_rows_survive_the_loss_of_every_checkpoint(copy):
    """The run starts again; the rows that it drops are kept."""
    rows = (copy / "metrics.jsonl").read_text()
    for number in (4, 8):
        shutil.rmtree(copy / "checkpoints" / str(number) / "state")
    with pytest.raises(RunError, match="no checkpoint .* is whole.*moved to"):
        run(tiny(), copy)
    assert (copy / "metrics.jsonl").read_text() == rows
    run(tiny(), copy)
    assert (copy / "damaged" / "metrics.jsonl-0").read_text() == rows


class StopAfter(Interrupt):
    """A signal comes when the run asks for the fourth time: inside the first epoch."""

    asked = 0

    def __call__(self):
        self.asked += 1
        if self.asked == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__()


def stopped(config, workdir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(opening, "Interrupt", StopAfter)
        with pytest.raises(loop.Stopped):
            run(config, workdir)


def test_a_resumed_epoch_counts_all_its_seconds(tmp_path, monkeypatch, rewrite_record):
    stopped(tiny(), tmp_path, monkeypatch)
    saved = tmp_path / "checkpoints"
    number = checkpoint_record.latest(saved)
    assert 0 < checkpoint_record.read(saved / str(number)).seconds < 100
    rewrite_record(tmp_path, number, seconds=1000.0)
    run(tiny(), tmp_path)
    first, second = RunRecord(tmp_path).epochs
    assert 1000 < first["seconds"] < 1100 and second["seconds"] < 100
    assert first["images_per_second"] == pytest.approx(96 / 1000, rel=0.1)


def photos(directory, count):
    """A data set of `count` pictures in each of two classes; its TFDS directory."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (directory / "photos" / label).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            file = directory / "photos" / label / f"{i:03d}.png"
            PIL.Image.fromarray(pixels).save(file)
    image_folder.prepare(directory / "photos", "photos", directory / "tfds")
    return str(directory / "tfds")


@pytest.mark.slow
def test_other_images_are_refused(tmp_path, monkeypatch):
    """Fewer than before made the count of batches negative: a slice from the end."""
    few, many = photos(tmp_path / "few", 60), photos(tmp_path / "many", 90)
    fields = {
        "data.name": "photos",
        "data.train": "train[:80%]",
        "data.validation": "train[80%:90%]",
        "data.test": "train[90%:]",
        "augment.normalize": "unit",
    }
    workdir = tmp_path / "run"
    stopped(tiny(**fields, **{"data.data_dir": few}), workdir, monkeypatch)
    with pytest.raises(ConfigError, match="other images"):
        score.score(workdir, checkpoint="last", data_dir=many)
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=r"other images .*train.*96.*144"):
        run(tiny(**fields, **{"data.data_dir": many}), workdir)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before
    shutil.move(few, tmp_path / "moved")
    fields["data.data_dir"] = str(tmp_path / "moved")
    assert "resuming after step 3" in run(tiny(**fields), workdir)[1]


OUTPUT = """
import os, sys
sys.path[:0] = [{root!r}]
way, workdir = sys.argv[1:]
if way == "closed":
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
elif way == "full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
from vgg_jax.cli import command
command.main(["train", "--config={root}/configs/quickstart.py", "--config.epochs=1",
  "--config.data.train=train[:64]", "--config.data.test=test[:50]",
  "--config.schedule.{warmup}=0.0", "--config.model.variant=conv3-8 |",
  "--config.data.validation=none", "--workdir=" + workdir])
"""


@pytest.mark.parametrize(
    "way",
    [
        "full",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("closed", "ascii")),
    ],
)
def test_a_run_outlives_its_output(way, tmp_path):
    warmup = next(iter(re.findall(r"warmup\w*", str(default.get_config()))))
    code = OUTPUT.format(root=str(ROOT), warmup=warmup)
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code, way, str(tmp_path)],
        capture_output=True,
        env=environ if way == "ascii" else None,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    said = "output cannot be written (No space left on device)"
    assert (said in done.stderr) == (way == "full")
    assert RunRecord(tmp_path).result and (tmp_path / "report.html").exists()
    assert ("test top-1" in done.stdout) == (way == "ascii")


def test_metrics_go_on_without_tensorboard(tmp_path, monkeypatch, caplog):
    """Where its disk is full; its thread used to die, and the run waited for ever."""
    from tensorboardX.event_file_writer import EventsWriter

    log = metric_log.MetricLog(tmp_path, step=0, epochs=0)
    log.write("step", {"step": 1, "loss": 2.5})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"step/loss" in events.read_bytes()  # at once: a kill loses nothing

    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", full)
    log.write("step", {"step": 2, "loss": 2.0})
    log.write("step", {"step": 3, "loss": 1.5})
    log.close()
    assert [row["step"] for row in metric_log.read(tmp_path)] == [1, 2, 3]
    assert caplog.text.count("TensorBoard failed") == 1
