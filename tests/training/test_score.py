"""Scores of a run's weights: equal to what the run itself measured of them."""

import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from configs import quickstart
from vgg_jax.cli import command
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.nn.views import VIEWS
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.training import loop, score

QUIET = Console(quiet=True)
NONE = {"data.validation": "none", "test_with": "last"}


def trained(workdir, **fields):
    config = quickstart.get_config()
    config.epochs = 3
    config.model.variant = "conv3-8 | conv3-8 |"
    config.data.train = "train[:256]"
    config.data.validation = "train[300:400]"
    config.data.test = "test[:150]"
    config.views = 2
    config.model.dtype = "float32"
    config.update_from_flattened_dict(fields)
    loop.train(config, workdir, QUIET)
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"))


def test_the_run_s_own_numbers(run, tmp_path, rewrite_record):
    """Which it wrote itself: rows of epochs, its test; epoch 2 is made the best."""
    copy = shutil.copytree(run, tmp_path / "copy")
    for number, accuracy in ((5, 0.0), (10, 1.0), (15, 0.0)):  # 4 updates per epoch
        if (copy / "checkpoints" / str(number)).exists():
            metrics = {"accuracy": accuracy, "loss": 0.0}
            rewrite_record(copy, number, metrics=metrics)
    losses = RunRecord(run).column("val_loss")[1]
    (last,) = score.score(copy, checkpoint="last", console=QUIET).values()
    (best,) = score.score(copy, checkpoint="best", console=QUIET).values()
    assert (best.loss, last.loss) == (losses[1], losses[2])
    (test,) = score.score(run, split="test", console=QUIET).values()
    own = json.loads((run / "result.json").read_text())["test"]
    assert (test.count, test.accuracy, test.loss) == (150, own["accuracy"], own["loss"])


def test_two_views_are_the_mean_of_two_single_ones(run, monkeypatch):
    one, two = score.score(run, views=(1, 2), console=QUIET).values()
    mirrored = lambda images, count: ([images[:, :, ::-1]], [1.0])
    monkeypatch.setattr("vgg_jax.nn.views.views", mirrored)
    (other,) = score.score(run, views=(1,), console=QUIET).values()
    assert np.abs(one.logits - other.logits).max() > 1e-3
    np.testing.assert_allclose(
        two.logits, (one.logits + other.logits) / 2, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "wrong", [{"split": "train"}, {"views": (3,)}, {"checkpoint": "first"}]
)
def test_a_wrong_name_is_told(run, wrong):
    with pytest.raises(ConfigError, match="choose one of"):
        score.score(run, console=QUIET, **wrong)


@pytest.mark.slow
def test_without_a_validation_split(tmp_path):
    run = trained(tmp_path, **NONE, epochs=1)
    with pytest.raises(ConfigError, match="split=test"):
        score.score(run, console=QUIET)
    with pytest.raises(RunError, match="checkpoint=last"):
        score.score(run, split="test", checkpoint="best", console=QUIET)
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="no checkpoint"):
        score.score(run, split="test", console=QUIET)
    with pytest.raises(RunError, match="no run"):
        score.score(tmp_path / "nothing", console=QUIET)


def test_the_command_prints_one_row_per_number_of_views(run, capsys):
    command.main(["score", f"--workdir={run}", "--views=1,2,6"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert [row[0] for row in rows] == [str(n) for n in VIEWS]
    assert [row[1] for row in rows] == ["100"] * 3
