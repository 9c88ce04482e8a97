"""What a run writes to Weights & Biases and MLflow, read back from their files."""

import contextlib
import logging
import signal
import time

import pytest
from rich.console import Console

from configs import default, quickstart
from vgg_jax.errors import ConfigError
from vgg_jax.runs import trackers
from vgg_jax.runs.checkpoint import NotFinite
from vgg_jax.runs.metric_log import MetricLog, read
from vgg_jax.training import config, opening
from vgg_jax.training.interrupt import Stopped

ROWS = [("epoch", {"epoch": 1, "step": 5, "val_accuracy": 0.25})]


def write(workdir, name, rows, ending="finished"):
    tracker = trackers.opened(name, workdir, {"lr": 0.01, "model.variant": "D"})
    log = MetricLog(workdir, step=0, epochs=0, tracker=tracker)
    for kind, row in rows:
        log.write(kind, row)
    log.close(ending)
    return tracker.identity


@pytest.mark.slow
def test_mlflow_goes_on_with_its_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    first = write(tmp_path, "mlflow", ROWS)
    client = mlflow.MlflowClient()
    for ending, status in (("failed", "FAILED"), ("stopped", "KILLED")):
        assert write(tmp_path, "mlflow", [], ending) == first
        assert client.get_run(first).info.status == status
    again = write(
        tmp_path, "mlflow", [("epoch", {"epoch": 2, "step": 10, "val_accuracy": 0.5})]
    )
    assert again == first
    run = client.get_run(first)
    assert run.data.params == {"lr": "0.01", "model.variant": "D"}
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(first, "epoch/val_accuracy")
    assert [(m.step, m.value) for m in history] == [(5, 0.25), (10, 0.5)]


def wandb_records(file):
    """What W&B's file holds, one block of LevelDB's log format behind a header."""
    from wandb.proto import wandb_internal_pb2

    data, at = file.read_bytes(), 7
    assert len(data) < 2**15
    while at + 7 <= len(data):  # checksum, length, type
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        yield wandb_internal_pb2.Record.FromString(data[at + 7 : at + 7 + length])
        at += 7 + length


@pytest.mark.parametrize("ending, status", [("finished", 0), ("failed", 1)])
def test_wandb_offline(tmp_path, monkeypatch, ending, status):
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    identity = write(tmp_path, "wandb", ROWS, ending)
    (seen,) = tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    limit = time.monotonic() + 20  # W&B's own process writes the file
    while not (exits := [r.exit for r in wandb_records(seen) if r.HasField("exit")]):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert [record.exit_code for record in exits] == [status]
    assert b"epoch/val_accuracy" in seen.read_bytes()


@pytest.mark.parametrize(
    "error, ending",
    [
        (None, "finished"),
        (NotFinite("the loss is nan"), "failed"),
        (Stopped("after step 4, saved", signal.SIGTERM), "stopped"),
        (KeyboardInterrupt(), "stopped"),
    ],
)
def test_a_tracker_is_told_how_the_run_ended(tmp_path, monkeypatch, error, ending):
    endings = []
    tracker = trackers.Tracker("x", lambda values, step: None, endings.append)
    monkeypatch.setattr(trackers, "opened", lambda *_: tracker)
    settings = quickstart.get_config()
    settings.model.variant = "conv3-8 |"
    with contextlib.suppress(type(error)) if error else contextlib.nullcontext():
        with opening.opened(config.resolve(settings), tmp_path, Console(quiet=True)):
            if error:
                raise error
    assert endings == [ending]


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, caplog):
    def fails(values, step):
        raise ConnectionError("no route")

    log = MetricLog(
        tmp_path, step=0, epochs=0, tracker=trackers.Tracker("x", fails, None)
    )
    with caplog.at_level(logging.ERROR):
        log.write("epoch", {"epoch": 1, "step": 5, "seconds": 1.0})
        log.write("epoch", {"epoch": 2, "step": 10, "seconds": 1.0})
        log.close()
    assert caplog.text.count("no route") == 1
    assert [row["step"] for row in read(tmp_path)] == [5, 10]


def test_one_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    settings = default.get_config()
    settings.log.tracker = "wandb"
    with pytest.raises(ConfigError, match="pip install wandb"):
        config.resolve(settings)
