"""Workdirs that older versions left behind: they resume, and end where those would.

`workdirs/<name>-<version>.tar.gz` are runs that SIGTERM stopped after 6 of 9 updates;
`<name>-<version>.metrics.jsonl` is what that version wrote when it resumed them to the
end, on an AMD EPYC with AVX512 in float32. 0.1.0 is commit cf59324.
"""

import contextlib
import io
import json
import tarfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from vgg_jax.runs import metric_log
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.training import step
from vgg_jax.training.config import build
from vgg_jax.training.loop import train
from vgg_jax.training.recipe import prepared
from vgg_jax.training.score import score

WORKDIRS = Path(__file__).parent / "workdirs"
VERSIONS = {"plain": "0.1.0", "whitened": "0.1.0", "averaged": "15e0616"}
QUIET = Console(quiet=True)


def unpack(name, directory):
    with tarfile.open(WORKDIRS / f"{name}-{VERSIONS[name]}.tar.gz") as tar:
        tar.extractall(directory, filter="data")
    return directory / name


def saved_arrays(workdir, number):
    path = workdir / "checkpoints" / str(number) / "state"
    return ocp.PyTreeCheckpointer().restore(path)


def restored(workdir, fields):
    """The state of checkpoint 7 as a run with this config reads it."""
    config = build(fields)
    dataset, recipe, _ = prepared(config, report=lambda text: None)
    shape = dataset.train.image_shape
    like = jax.eval_shape(partial(step.init, recipe, seed=0, image_shape=shape))
    with contextlib.closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        return checkpoints.restore(7, like)


@pytest.fixture(
    params=[
        name if name == "plain" else pytest.param(name, marks=pytest.mark.slow)
        for name in VERSIONS
    ]
)
def old(request, tmp_path):
    """A stopped workdir, and the rows of the finished run."""
    name = f"{request.param}-{VERSIONS[request.param]}"
    rows = (WORKDIRS / f"{name}.metrics.jsonl").read_text().splitlines()
    return unpack(request.param, tmp_path), [json.loads(row) for row in rows]


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
    if workdir.name == "averaged":  # the last epoch averages statistics, as none did
        expected[-1].pop("val_loss")
    for row, want in zip(rows, expected, strict=True):
        for key in ("loss", "train_loss", "val_loss"):
            if key in want:
                assert row[key] == pytest.approx(want[key], rel=2e-3), (key, want)


def test_old_weights_are_scored(old):
    workdir, expected = old
    (best,) = score(workdir, checkpoint="best", console=QUIET).values()
    first = next(row for row in expected if row["kind"] == "epoch")
    # Before its fifth update, version 0.1's average held another whitening kernel.
    rel = 5e-3 if workdir.name == "whitened" else 1e-5
    assert best.loss == pytest.approx(first["val_loss"], rel=rel)


@pytest.mark.slow
def test_the_old_whitening_kernel_is_todays(tmp_path):
    """`frozen_kernel` of the params alone; the copies of optimiser and average go."""
    workdir = unpack("whitened", tmp_path)
    kernel = saved_arrays(workdir, 7)["params"]["conv1_1"]["frozen_kernel"]
    train(ConfigDict(RunRecord(workdir).config), workdir, QUIET)  # 3 updates more
    new = saved_arrays(workdir, 12)
    np.testing.assert_array_equal(new["params"]["conv1_1"]["kernel"], kernel)
    assert "frozen_kernel" not in new["params"]["conv1_1"]
    assert list(new["ema"]["conv1_1"]) == ["bias"]


def test_averages_of_statistics_start_at_the_old_statistics(tmp_path):
    """Those of parameters go on as they were."""
    workdir = unpack("averaged", tmp_path)
    old = saved_arrays(workdir, 7)
    assert sorted(old["ema"]["bn2_1"]) == ["bias", "scale"]
    state = restored(workdir, RunRecord(workdir).config)
    want = {**old["ema"]["bn2_1"], **old["batch_stats"]["bn2_1"]}
    jax.tree.map(np.testing.assert_array_equal, state.ema["bn2_1"], want)


def test_a_checkpoint_goes_through_every_change_since(tmp_path):
    """A whitened run of 0.1 with an exponential average: both changes at once."""
    workdir = unpack("whitened", tmp_path)
    fields = RunRecord(workdir).config
    fields["lookahead"], fields["ema_decay"] = 0.0, 0.5
    state = restored(workdir, fields)
    old = saved_arrays(workdir, 7)
    np.testing.assert_array_equal(
        state.ema["bn2_1"]["var"], old["batch_stats"]["bn2_1"]["var"]
    )
    np.testing.assert_array_equal(
        state.variables["params"]["conv1_1"]["kernel"],
        old["params"]["conv1_1"]["frozen_kernel"],
    )
