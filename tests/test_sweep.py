"""Grids of runs."""

import json
import subprocess
import sys

import pytest

from vgg_jax import sweep
from vgg_jax.errors import ConfigError


def test_the_grid_is_the_product_with_seeds_innermost():
    runs = sweep.grid(["--config.lr=0.1,0.3", "--config.model.hidden=(8,8),(9,)"], 2)
    assert len(runs) == 8
    assert runs[0] == {"lr": "0.1", "model.hidden": "(8,8)", "seed": "0"}
    assert runs[1]["seed"] == "1" and runs[2]["model.hidden"] == "(9,)"
    assert runs[-1] == {"lr": "0.3", "model.hidden": "(9,)", "seed": "1"}


@pytest.mark.parametrize("wrong", ["--lr=3", "--config.lr", "--config.seed=1,2"])
def test_a_wrong_setting_is_told(wrong):
    with pytest.raises(ConfigError):
        sweep.grid([wrong], 1)


def test_a_sweep_runs_resumes_and_compares(tmp_path):
    command = [
        *(sys.executable, "-m", "vgg_jax.sweep", "--config=configs/quickstart.py"),
        *("--config.lr=0.01,0.02", "--seeds=1", f"--workdir={tmp_path}"),
        *("--config.epochs=1", "--config.data.train=train[:128]"),
        *("--config.schedule.warmup_epochs=0.0", "--config.model.width=0.0625"),
        *("--config.data.validation=train[128:192]", "--config.data.test=test[:64]"),
    ]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert len(rows) == 2 and all(len(row["test"]) == 1 for row in rows)
    assert first.stdout.splitlines()[-4].endswith("seeds")
    page = (tmp_path / "comparison.html").read_text()
    assert "Where the configs differ" in page and "<td>lr</td>" in page
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout.count("is finished") == 2
    assert json.loads((tmp_path / "sweep.json").read_text()) == rows
