"""Fields that do nothing: what the table says is what a training does."""

import copy
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from configs import default
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.data.datasets import Dataset, Split
from vgg_jax.errors import ConfigError
from vgg_jax.runs.workdir import flatten
from vgg_jax.training import config, idle, loop, recipe, step
from vgg_jax.training.config import resolve

RNG = np.random.default_rng(0)
SPLIT = Split(
    RNG.integers(0, 256, (8, 8, 8, 3), np.uint8), np.arange(8, dtype=np.int32) % 3
)
DATASET = Dataset("noise", tuple("abc"), SPLIT, SPLIT, SPLIT)
SMALL = {
    "epochs": 4,
    "batch_size": 4,
    "lr": 0.3,
    "augment.crop": 3,
    "augment.normalize": "unit",
    "model.variant": "conv3-4 |",
    "model.batch_norm": True,
    "model.hidden": (6,),
    "model.dtype": "float32",
    "optimizer.weight_decay": 0.05,
}
COMPACT, STEP = {"model.head": "compact"}, {"schedule.name": "step"}
NO_NORM, NO_DECAY = {"model.batch_norm": False}, {"optimizer.weight_decay": 0.0}
CONSTANT, COSINE = {"schedule.name": "constant"}, {"schedule.name": "cosine"}
# field -> where it does nothing, another value, where it does something
CASES = {
    "augment.crop_mode": ({"augment.crop": 0}, "reflect", {}),
    "model.norm_scale": (NO_NORM, False, {}),
    "model.hidden": (COMPACT, (5, 5), {}),
    "model.dropout": (COMPACT, 0.25, {}),
    "optimizer.nesterov": ({"optimizer.momentum": 0.0}, True, {}),
    "optimizer.decay": (NO_DECAY, "l2", {}),
    "optimizer.decay_all": (NO_DECAY, False, {}),
    "optimizer.bias_scale": (NO_NORM, 4.0, {}),
    "schedule.boundaries": (COSINE, (1, 3), STEP),
    "schedule.factor": (COSINE, 0.5, STEP | {"schedule.boundaries": (1,)}),
    "schedule.final_scale": (CONSTANT, 0.5, COSINE),
    "schedule.monitor": (CONSTANT, "train_accuracy", {}),
    "schedule.patience": (COSINE, 4, {}),
    "schedule.min_delta": (COSINE, 2.0, {}),
    "schedule.cooldown": (COSINE, 4, {}),
    "schedule.min_lr": (COSINE, 0.02, {}),
}
# Not seen in an update: where files are, which checkpoint is kept, the first weights.
OUTSIDE = {"data.data_dir", "data.archive_dir", "checkpoint.monitor", "init.layers"}


def fields_of(**changes):
    settings = default.get_config()
    settings.update_from_flattened_dict(changes)
    return json.loads(settings.to_json())


def program(built):
    """What a training step computes, as JAX sees it."""
    made = recipe.build(built, DATASET, steps_per_epoch=2)
    init = functools.partial(step.init, made, seed=0, image_shape=SPLIT.image_shape)
    index = np.arange(4, dtype=np.int32)
    batch = TrainingBatch(*SPLIT.take(index), index=index, epoch=np.int32(0))
    traced = jax.make_jaxpr(functools.partial(step.train_step, made))
    return re.sub("0x[0-9a-f]+", "", str(traced(jax.eval_shape(init), batch)))


def updates(built):
    """Two updates of the parameters of a network with or without batch norm."""
    layers = ["conv1_1", *["bn1_1"] * built.model.batch_norm]
    params = {layer: {n: jnp.ones(2) for n in ("kernel", "bias")} for layer in layers}
    optimizer = built.optimizer.transformation()
    state, made = optimizer.init(params), []
    for size in (1.0, 3.0):
        grads = jax.tree.map(lambda p, size=size: size * p, params)
        update, state = optimizer.update(grads, state, params, learning_rate=built.lr)
        made += jax.tree.leaves(update)
    return [x.tolist() for x in made]


def rates(built):
    """The rate of every step, and the plateau's scale after eight epochs."""
    made = recipe.build(built, DATASET, steps_per_epoch=2)
    state = made.plateau.init() if made.plateau else None
    scales = []
    for loss in (3.0, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5):
        values = {"val_loss": loss, "train_accuracy": 0.5}
        if state:
            state = made.plateau.update(state, values[made.monitor])
            scales.append(float(state.scale))
    made = made._replace(plateau=None)
    steps = map(jnp.int32, range(8))
    return scales, [float(step.learning_rate(made, i, None)) for i in steps]


OUTCOMES = {
    "augment": program,
    "model": program,
    "optimizer": updates,
    "schedule": rates,
}


def test_every_field_of_the_table_has_a_case():
    assert CASES.keys() | OUTSIDE == idle.NEEDS.keys()


@pytest.mark.parametrize("field", CASES)
def test_it_does_nothing_where_the_table_says_so(field):
    where, value, elsewhere = CASES[field]
    there, active = SMALL | where, SMALL | elsewhere
    if field in there:
        del there[field]  # at its default
    assert field in idle.idle_fields(fields_of(**there))
    assert field not in idle.idle_fields(fields_of(**active))
    outcome = OUTCOMES[field.partition(".")[0]]
    before, after, then, now = (
        outcome(config.build(fields_of(**changes)))
        for x in (there, active)
        for changes in (x, x | {field: value})
    )
    assert before == after and then != now


@pytest.mark.parametrize("field", [*CASES, *sorted(OUTSIDE)])
def test_the_default_of_a_config_file_is_the_dataclass_s(field):
    assert flatten(default.get_config().to_dict())[field] == config.defaults()[field]


def refused(**changes):
    settings = default.get_config()
    settings.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError) as error:
        resolve(settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_is_refused_with_what_it_needs():
    assert refused(**COMPACT | {"model.dropout": 0.3}) == (
        "model.dropout=0.3 does nothing under model.head='compact': leave it at its "
        "default, 0.5, or set model.head=paper or adaptive"
    )
    assert "model.hidden=()" in refused(**{"model.hidden": (), "model.dropout": 0.3})
    assert "data.name='imagenette'" in refused(
        **{"data.name": "imagenette", "data.archive_dir": "x"}
    )
    assert "data.data_dir='x' does nothing" in refused(
        **{"data.name": "cifar10_sample", "data.data_dir": "x"}
    )
    assert "data.validation='none'" in refused(
        **{"data.validation": "none", "test_with": "last", "schedule.name": "cosine"},
        **{"checkpoint.monitor": "loss"},
    )
    assert refused(**{"init.layers": ("conv*",)}).endswith(
        "set init.path to a run or a file"
    )


def test_all_that_do_nothing_are_named_at_once():
    told = refused(**CONSTANT | {"schedule.factor": 0.2, "schedule.patience": 3})
    assert "schedule.factor=0.2 does" in told and "schedule.patience=3 does" in told
    assert "schedule.name=step or plateau" in told


@pytest.mark.parametrize(
    "changes, said",
    [
        ({}, "nothing drops at 60, 120, 160: name epochs above 0 and below 50"),
        ({"schedule.boundaries": (25, 50)}, "nothing drops at 50"),
        ({"schedule.boundaries": (5, 25), "schedule.warmup": 0.2}, "drops at 5: name"),
        ({"schedule.boundaries": ()}, "nothing drops at no epoch"),
    ],
)
def test_boundaries_at_which_nothing_drops(changes, said):
    assert said in refused(**STEP, **changes)
    settings = default.get_config()
    settings.update_from_flattened_dict(STEP | {"schedule.boundaries": (25, 49.5)})
    resolve(settings)


def test_a_run_of_an_older_version_resumes_by_the_corrected_command(
    tmp_path, monkeypatch
):
    """Its config.json has a value that does nothing, and that is refused today."""

    class Begun(Exception):
        pass

    def opened(*_):
        raise Begun

    monkeypatch.setattr(loop, "opened", opened)
    settings = default.get_config()
    settings.model.head = "compact"
    old = copy.deepcopy(dict(resolve(settings).fields))
    old["model"]["dropout"] = 0.0
    (tmp_path / "config.json").write_text(json.dumps(old))
    quiet = Console(quiet=True)
    with pytest.raises(ConfigError, match="model.dropout=0.0 does nothing"):
        loop.train(ConfigDict(old), tmp_path, quiet)
    with pytest.raises(Begun):
        loop.train(settings, tmp_path, quiet)
    settings.model.head = "paper"
    with pytest.raises(ConfigError, match="model.dropout: 0.0 -> 0.5"):
        loop.train(settings, tmp_path, quiet)
