"""What a run writes to Weights & Biases and MLflow, read back from their files."""

import logging
import time

import pytest

from configs import default
from vgg_jax.errors import ConfigError
from vgg_jax.runs import trackers
from vgg_jax.runs.metric_log import MetricLog, read
from vgg_jax.training import config

ROWS = [("epoch", {"epoch": 1, "step": 5, "val_accuracy": 0.25})]


def write(workdir, name, rows):
    tracker = trackers.opened(name, workdir, {"lr": 0.01, "model.variant": "D"})
    log = MetricLog(workdir, step=0, epochs=0, tracker=tracker)
    for kind, row in rows:
        log.write(kind, row)
    log.close()
    return tracker.identity


def test_mlflow_goes_on_with_its_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    first = write(tmp_path, "mlflow", ROWS)
    again = write(
        tmp_path, "mlflow", [("epoch", {"epoch": 2, "step": 10, "val_accuracy": 0.5})]
    )
    assert again == first
    client = mlflow.MlflowClient()
    run = client.get_run(first)
    assert run.data.params == {"lr": "0.01", "model.variant": "D"}
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(first, "epoch/val_accuracy")
    assert [(m.step, m.value) for m in history] == [(5, 0.25), (10, 0.5)]


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    identity = write(tmp_path, "wandb", ROWS)
    (seen,) = tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    limit = time.monotonic() + 20  # W&B's own process writes the file
    while b"epoch/val_accuracy" not in seen.read_bytes():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, caplog):
    def fails(values, step):
        raise ConnectionError("no route")

    log = MetricLog(
        tmp_path, step=0, epochs=0, tracker=trackers.Tracker("x", fails, None)
    )
    with caplog.at_level(logging.ERROR):
        log.write(*ROWS[0])
        log.write("epoch", {"epoch": 2, "step": 10})
        log.close()
    assert caplog.text.count("no route") == 1
    assert [row["step"] for row in read(tmp_path)] == [5, 10]


def test_one_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    settings = default.get_config()
    settings.log.tracker = "wandb"
    with pytest.raises(ConfigError, match="pip install wandb"):
        config.resolve(settings)
