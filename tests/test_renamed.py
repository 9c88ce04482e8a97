"""What older versions wrote means the same today."""

import copy
from importlib import import_module
from pathlib import Path

import pytest

from vgg_jax.renamed import modern
from vgg_jax.runs.workdir import differences
from vgg_jax.training.config import build, resolve

CONFIGS = Path(__file__).parents[1] / "configs"
NEW = {"finetune", "imagenet", "protocol"}  # of 0.2
NAMES = sorted({p.stem for p in CONFIGS.glob("[a-z]*.py")} - NEW)
# Epochs of warm-up by version 0.1 (commit cf59324), where there were any.
WARMUP_EPOCHS = {
    "quickstart": 3.0,
    "findings": 1.0,
    "vgg16_bn": 2.0,
    "vgg16_plain": 2.0,
    "speedrun": 0.23 * 24,
    "speedrun:90": 0.23 * 4,
}


def then_and_now(name):
    """Fields of a config as version 0.1 would have written them, and today's."""
    module, _, argument = name.partition(":")
    get_config = import_module(f"configs.{module}").get_config
    now = dict(resolve(get_config(*filter(None, [argument]))).fields)
    then = copy.deepcopy(now)
    del then["schedule"]["warmup"]
    then["schedule"]["warmup_epochs"] = WARMUP_EPOCHS.get(name, 0.0)
    del then["init"], then["model"]["frozen"], then["optimizer"]["layer_rates"]
    return then, now


@pytest.mark.parametrize("name", [*NAMES, "speedrun:90"])
def test_a_warm_up_in_epochs_is_todays_share(name):
    """So that a run of version 0.1 resumes, and warms up for as many steps."""
    then, now = then_and_now(name)
    assert modern(then) == now and not differences(then, now)
    schedule, epochs = build(then).schedule, now["epochs"]
    for steps in (*range(1, 400), 1250, 1562, 5004):
        old = round(WARMUP_EPOCHS.get(name, 0.0) * steps)  # as cf59324 counted
        assert schedule.warmup_steps(epochs * steps) == old


@pytest.mark.parametrize("epochs, warmup", [(30, 0.5), (7, 1.5), (90, 2.5), (9, 0.1)])
def test_half_a_step_of_warm_up_goes_where_it_went(epochs, warmup):
    fields, _ = then_and_now("quickstart")
    fields["epochs"], fields["schedule"]["warmup_epochs"] = epochs, warmup
    schedule = build(fields).schedule
    for steps in (5, 33, 195, 255):
        assert schedule.warmup_steps(epochs * steps) == round(warmup * steps)


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 9, "schedule": {"warmup": 0.1, "warmup_epochs": 3.0}},
        {"epochs": 0, "schedule": {"warmup_epochs": 3.0}},
        {"epochs": "x", "schedule": {"warmup_epochs": 3.0}},
        {"epochs": 9, "schedule": {"warmup_epochs": "x"}},
        {"epochs": 9, "schedule": 3, "data": "x"},
        {"schedule": {"warmup_epochs": 3.0}},
        {"model": 3, "optimizer": "x"},
    ],
)
def test_what_cannot_be_renamed_is_left_for_the_checks(fields):
    assert modern(copy.deepcopy(fields)) == fields


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_needs_no_other_change(name):
    settings = import_module(f"configs.{name}").get_config()
    settings.epochs = 1
    assert resolve(settings).epochs == 1
