"""Workdirs that version 0.1 left behind: they resume, and end where it would have.

`workdirs/<name>-0.1.0.tar.gz` are runs of commit cf59324 that SIGTERM stopped after 6
of 9 updates; `<name>-0.1.0.metrics.jsonl` is what it wrote when it resumed them
to the end, on an AMD EPYC with AVX512 in float32.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from vgg_jax.runs import metric_log
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.training.loop import train
from vgg_jax.training.score import score

WORKDIRS = Path(__file__).parent / "workdirs"
QUIET = Console(quiet=True)


@pytest.fixture(params=["plain", "whitened"])
def old(request, tmp_path):
    """A stopped workdir, and the rows of the finished run."""
    name = f"{request.param}-0.1.0"
    with tarfile.open(WORKDIRS / f"{name}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    rows = (WORKDIRS / f"{name}.metrics.jsonl").read_text().splitlines()
    return tmp_path / request.param, [json.loads(row) for row in rows]


def test_an_old_workdir_resumes(old):
    workdir, expected = old
    shown = Console(record=True, width=200, file=io.StringIO())
    fields = json.loads((workdir / "config.json").read_text())
    assert fields["data"]["validation"] in ("blog", "train[100:150]")
    result = train(ConfigDict(fields), workdir, shown)
    assert "resuming after step 6; epochs finished: 1" in shown.export_text()
    assert not (workdir / "damaged").exists() and result["test"]["count"] == 50
    rows = metric_log.read(workdir)
    assert [(row["kind"], row["step"]) for row in rows] == [
        (row["kind"], row["step"]) for row in expected
    ]
    for row, want in zip(rows, expected, strict=True):
        for key in ("loss", "train_loss", "val_loss"):
            if key in want:
                assert row[key] == pytest.approx(want[key], rel=2e-3), (key, want)


def test_old_weights_are_scored(old):
    workdir, expected = old
    (best,) = score(workdir, checkpoint="best", console=QUIET).values()
    first = next(row for row in expected if row["kind"] == "epoch")
    # Before its fifth update, version 0.1's average held another whitening kernel.
    rel = 1e-5 if workdir.name == "plain" else 5e-3
    assert best.loss == pytest.approx(first["val_loss"], rel=rel)


def test_the_old_whitening_kernel_is_todays(tmp_path):
    """`frozen_kernel` of the params alone; the copies of optimiser and average go."""
    with tarfile.open(WORKDIRS / "whitened-0.1.0.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    workdir = tmp_path / "whitened"
    raw = ocp.PyTreeCheckpointer().restore(workdir / "checkpoints" / "7" / "state")
    kernel = raw["params"]["conv1_1"]["frozen_kernel"]
    train(ConfigDict(RunRecord(workdir).config), workdir, QUIET)  # 3 updates more
    raw = ocp.PyTreeCheckpointer().restore(workdir / "checkpoints" / "12" / "state")
    np.testing.assert_array_equal(raw["params"]["conv1_1"]["kernel"], kernel)
    assert "frozen_kernel" not in raw["params"]["conv1_1"]
    assert list(raw["ema"]["conv1_1"]) == ["bias"]
