"""Every config loads and is legal; every field of it is read by the code."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from configs import default
from vgg_jax.data.datasets import Dataset, Split
from vgg_jax.errors import ConfigError
from vgg_jax.runs import workdir
from vgg_jax.training import config as config_lib
from vgg_jax.training import recipe

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("[a-z]*.py"))
LEGAL = {"quickstart", "vgg11", "vgg13", "vgg16", "vgg19", "vgg16_bn", "blog"}


def load(name):
    return import_module(f"configs.{name}").get_config()


def test_the_configs_of_the_issue_exist():
    assert LEGAL <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_legal_and_has_the_fields_of_default(name):
    config = load(name)
    config_lib.resolve(config)
    fields = workdir.flatten(default.get_config().to_dict()).keys()
    assert workdir.flatten(config.to_dict()).keys() == fields


def test_the_blog_is_the_blog():
    """facts.md section 1."""
    config = load("blog")
    assert (config.model.variant, config.augment.resize) == ("C", 224)
    assert (config.batch_size, config.epochs, config.lr) == (32, 50, 0.01)
    assert config.model.kernel_init == "glorot_uniform"
    assert (config.model.dropout, config.model.batch_norm) == (0, False)
    assert (config.augment.crop, config.augment.flip) == (0, "none")
    assert (config.augment.normalize, config.remainder) == ("unit", "drop")
    assert config.optimizer.decay == "constant"
    assert (config.optimizer.weight_decay, config.optimizer.momentum) == (5e-4, 0.9)
    plateau = config.schedule
    assert (plateau.name, plateau.monitor) == ("plateau", "val_loss")
    assert (plateau.factor, plateau.patience, plateau.min_lr) == (0.1, 1, 1e-5)
    assert config.data.validation == "blog"


def test_vgg16_takes_a_variant():
    assert import_module("configs.vgg16").get_config("D").model.variant == "D"


@pytest.mark.parametrize("field", config_lib.RANGES | config_lib.NAMES)
def test_a_rule_is_about_a_field(field):
    assert field in workdir.flatten(default.get_config().to_dict())


def test_every_field_is_read():
    """Groups handed over whole are keyword arguments; the rest is read by name."""
    import inspect

    from vgg_jax.data import datasets as data
    from vgg_jax.nn import vgg as model
    from vgg_jax.training import augment
    from vgg_jax.training import sgd as optimizer

    taken = {
        "data": inspect.signature(data.load).parameters,
        "augment": inspect.signature(augment.Augment).parameters,
        "model": inspect.signature(model.VGG).parameters,
        "optimizer": inspect.signature(optimizer.sgd).parameters,
    }
    # `config.py` only checks: reading a field there does not count.
    files = [p for p in (ROOT / "vgg_jax").rglob("*.py") if p.name != "config.py"]
    code = "\n".join(p.read_text() for p in files)
    for field in workdir.flatten(default.get_config().to_dict()):
        group, _, name = field.rpartition(".")
        if group in taken:
            assert name in taken[group], field
        else:
            by_name = re.escape(name)
            assert re.search(
                rf"(config|schedule|plateau)\.({group}\.)?{by_name}\b", code
            ), field


def test_a_rate_of_norm_biases_needs_batch_norm():
    settings = load("speedrun")
    config_lib.resolve(settings)
    settings.model.batch_norm = False
    with pytest.raises(ConfigError, match="bias_scale=64.0 .*batch_norm=True"):
        config_lib.resolve(settings)


def test_wrong_gradients_are_refused(monkeypatch):
    """XLA's own convolution in bfloat16 at a small batch; see tests/test_conv.py."""
    settings = default.get_config()
    settings.model.conv, settings.model.dtype = "lax", "bfloat16"
    config_lib.resolve(settings)
    settings.batch_size = 8
    with pytest.raises(ConfigError, match="model.conv=auto"):
        config_lib.resolve(settings)
    monkeypatch.setattr(config_lib.jax, "default_backend", lambda: "gpu")
    config_lib.resolve(settings)


def test_a_built_recipe_follows_the_config():
    import numpy as np

    split = Split(np.zeros((400, 32, 32, 3), np.uint8), np.zeros(400, np.int32))
    dataset = Dataset("x", tuple("abc"), split, split, split)
    made = recipe.build(config_lib.resolve(load("blog")), dataset, steps_per_epoch=100)
    assert made.model.num_classes == 3
    assert float(made.schedule(10_000)) == pytest.approx(0.01)
    state = made.plateau.init()
    for _ in range(9):  # 1e-5 / 1e-2: three drops at most
        state = made.plateau.update(state, 1.0)
    assert float(state.scale) == pytest.approx(1e-3)
