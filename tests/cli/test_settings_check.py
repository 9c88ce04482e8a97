"""A sweep's settings are checked, all of them, before its first run."""

import re

import pytest

from vgg_jax.cli import command, settings_check, sweep
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import launcher, sweep_grid
from vgg_jax.runs.devices import Device

CONFIG = "configs/quickstart.py"


def check(*settings, search=False, **variables):
    grid = sweep_grid.parse([f"--config.{setting}" for setting in settings])
    environment = launcher.environment(Device(None, variables))
    settings_check.check(CONFIG, grid, search=search, environment=environment)


def test_all_that_is_wrong_in_a_grid_is_told_before_a_run(tmp_path):
    """`lr=-1` is the last of its axis, which used to be found after the other run."""
    options, settings = command.parser_of("sweep").parse_known_args(
        [f"--config={CONFIG}", f"--workdir={tmp_path / 'sweep'}", "--seeds=2",
         "--config.lr=0.1,-1", "--config.model.pool=max,min"]
    )  # fmt: skip
    options.settings = settings
    with pytest.raises(ConfigError) as caught:
        sweep.run(options)
    assert re.fullmatch(
        "no run was started: lr=0.1, model.pool=min and 1 more: model.pool='min' .*; "
        "lr=-1, model.pool=max: lr=-1.* above 0",
        str(caught.value),
    )
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_everywhere_is_told_once():
    settings = [{"lrr": "1"}, {"lrr": "2"}]
    assert settings_check._wrong_settings(settings, ["no lrr", "no lrr"]) == ["no lrr"]


def test_ends_and_values_of_a_search():
    """A drop at epoch 5 is good with one end of `epochs`, `lr=-1` is with none."""
    with pytest.raises(ConfigError) as caught:
        check(
            *("epochs=2..9", "schedule.name=step", "schedule.boundaries=(1,),(5,)"),
            *("lr=-1..0.1", "model.pool=max,min"),
            search=True,
        )
    said = str(caught.value)
    assert "lr=-1" in said and "model.pool='min'" in said and "boundaries" not in said


@pytest.mark.slow
def test_several_settings_need_a_validation_split():
    without = ("data.validation=none", "test_with=last")
    check(*without)  # one setting, over seeds
    with pytest.raises(ConfigError, match="data.validation=sklearn_80_20, or give one"):
        check(*without, "lr=0.1,0.2")
    with pytest.raises(ConfigError, match="data.validation=sklearn_80_20, or give one"):
        check(*without, "lr=0.1..0.2", search=True)


def test_a_check_that_fails_is_told():
    """JAX cannot start; what it says last is in the line."""
    with pytest.raises(RunError, match="not be checked: .*initialize backend 'abacus'"):
        check("lr=0.1", JAX_PLATFORMS="abacus")
