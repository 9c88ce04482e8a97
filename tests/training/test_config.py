"""Every config loads and is legal; every field of it is read by the code."""

import copy
import dataclasses
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ml_collections import config_dict

from configs import default
from vgg_jax.data import datasets
from vgg_jax.data.datasets import Dataset, Split
from vgg_jax.errors import ConfigError
from vgg_jax.nn.vgg import VGG
from vgg_jax.runs import workdir
from vgg_jax.training import config, recipe
from vgg_jax.training.augment import Augment
from vgg_jax.training.config import resolve
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("[a-z]*.py"))
PUBLISHED = {"quickstart", "vgg11", "vgg13", "vgg16", "vgg19", "vgg16_bn"}
PUBLISHED |= {"vgg16_plain", "speedrun", "blog", "findings"}


def load(name):
    settings = import_module(f"configs.{name}").get_config()
    if name == "finetune":  # which needs to be told
        settings.init.path = "runs/x"
    return settings


def test_no_published_config_is_missing():
    assert PUBLISHED <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_legal_and_has_the_fields_of_default(name):
    settings = load(name)
    resolve(settings)
    fields = workdir.flatten(default.get_config().to_dict()).keys()
    assert workdir.flatten(settings.to_dict()).keys() == fields


def test_the_blog_is_the_blog():
    """docs/facts.md section 1."""
    blog = load("blog")
    assert (blog.model.variant, blog.augment.resize) == ("C", 224)
    assert (blog.batch_size, blog.epochs, blog.lr) == (32, 50, 0.01)
    assert blog.model.kernel_init == "glorot_uniform"
    assert blog.model.dtype == "float32"  # Keras' default
    assert (blog.model.dropout, blog.model.batch_norm) == (0, False)
    assert (blog.augment.crop, blog.augment.flip) == (0, "none")
    assert (blog.augment.normalize, blog.remainder) == ("unit", "drop")
    assert blog.optimizer.decay == "constant"
    assert (blog.optimizer.weight_decay, blog.optimizer.momentum) == (5e-4, 0.9)
    plateau = blog.schedule
    assert (plateau.name, plateau.monitor) == ("plateau", "val_loss")
    assert (plateau.factor, plateau.patience, plateau.min_lr) == (0.1, 1, 1e-5)
    assert blog.data.validation == "sklearn_80_20"


def test_vgg16_takes_a_variant():
    assert import_module("configs.vgg16").get_config("D").model.variant == "D"


def test_every_field_has_a_place():
    """The dataclasses hold the fields of `configs/default.py`, and no others."""
    written = default.get_config().to_dict()
    for name, group in config.GROUPS.items():
        flax = {"parent", "name"} if group is VGG else set()
        fields = {f.name for f in dataclasses.fields(group)} - flax
        assert set(written.pop(name)) == fields
    extra = {"fields", "num_classes", *config.GROUPS}
    own = {f.name for f in dataclasses.fields(config.Config)}
    assert set(written) == own - extra


def reads_of(field):
    """Places that read a field: in its group's own module, or through the config.

    The groups that are handed over whole are read by the module that defines them, the
    others as `config.group.field`; `config.py`, which only checks, does not count.
    """
    group, _, name = field.rpartition(".")
    owner = config.GROUPS.get(group)
    if owner in (Augment, SGD, Schedule, VGG):
        code = inspect.getsource(sys.modules[owner.__module__])
        return re.findall(rf"\b(?:self|model)\.{name}\b", code)
    if group == "data":
        return re.findall(rf"\b{name}\b", inspect.getsource(datasets.load))[2:]
    files = [p for p in (ROOT / "vgg_jax").rglob("*.py") if p.name != "config.py"]
    code = "\n".join(p.read_text() for p in files)
    return re.findall(rf"\bconfig\.{re.escape(field)}\b", code)


def test_every_field_is_read():
    unread = {
        field
        for field in workdir.flatten(default.get_config().to_dict())
        if not reads_of(field)
    }
    # Read by `build`, which asks the data set where it is 0.
    assert unread <= {"model.num_classes"}
    assert not reads_of("augment.corp") and not reads_of("epoch")


# One value for each kind of rule, what the line must say, and the field it is about.
WRONG = {
    "lr": (-1.0, "above 0"),
    "lookahead": (1.0, "in [0, 1)"),
    "seed": (-1, "in [0, 4294967296)"),
    "views": (3, "choose one of: 1, 2, 6"),
    "remainder": ("pad", "choose one of: drop, keep"),
    "augment.crop": (-1, "at least 0"),
    "augment.flip": ("F", "choose one of: none, random, alternating"),
    "augment.normalize": ("F", "choose one of: auto, data, init, unit, symmetric"),
    "model.head": ("F", "choose one of: paper, adaptive, compact"),
    "model.hidden": ((0,), "widths of at least 1"),
    "model.variant": ("F", "choose one of: A, A-LRN, B, C, D, E"),
    "model.num_classes": (-1, "at least 0"),
    "model.dtype": ("float16", "choose one of: auto, float32, bfloat16"),
    "optimizer.momentum": (1.0, "in [0, 1)"),
    "optimizer.decay": ("F", "choose one of: decoupled, constant, l2"),
    "optimizer.layer_rates": (("fc8=x",), "pattern=factor with a factor above 0"),
    "init.layers": ((), "at least one pattern"),
    "schedule.boundaries": ((9.0, 5.0), "rising epochs above 0"),
    "schedule.factor": (1.0, "in (0, 1)"),
    "checkpoint.minutes": (0.0, "above 0"),
    "checkpoint.monitor": ("F", "choose one of: accuracy, loss"),
    "log.every_steps": (0, "at least 1"),
    # The types that the annotations of the dataclasses give.
    "epochs": (2.5, "a whole number, in [1, 2147483648)"),
    "batch_size": ("x", "a whole number, at least 1"),
    "eval_batch_size": (True, "a whole number, at least 1"),
    "label_smoothing": ("x", "a number, in [0, 1)"),
    "test_with": (1, "a string, one of: best, last"),
    "data.name": (1, "a string"),
    "data.stream": (1, "True or False"),
    "augment.crop_mode": ([], "a string, one of: zero, reflect"),
    "model.width": ("x", "a number, above 0"),
    "model.batch_norm": (1, "True or False"),
    "schedule.patience": (1.0, "a whole number, in [0, 2147483648)"),
    "schedule.min_delta": (float("nan"), "at least 0"),
    "model.logit_scale": (None, "a number, above 0"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_told_with_the_field_as_the_config_calls_it(field):
    value, said = WRONG[field]
    settings = default.get_config()
    with settings.ignore_type():
        settings.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError) as error:
        resolve(settings)
    text = str(error.value)
    assert text.startswith(f"{field}=") and said in text and "\n" not in text


@pytest.mark.parametrize("value", [5, (64, "x"), (64, 2.5), "64"])
def test_a_tuple_of_other_things_is_told(value):
    fields = copy.deepcopy(dict(resolve(default.get_config()).fields))
    fields["model"]["hidden"] = value
    with pytest.raises(ConfigError, match=r"model\.hidden=.* a tuple of whole numbers"):
        config.build(fields)


def test_whole_numbers_and_lists_are_taken():
    settings = default.get_config()
    with settings.ignore_type():
        settings.lr, settings.model.hidden = 1, [8]
    resolved = resolve(settings)
    assert (resolved.lr, resolved.model.hidden) == (1, (8,))


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("epoch", 7, "epoch is no field: did you mean epochs?"),
        ("dropout", 0.1, "dropout is no field: did you mean model.dropout?"),
        ("mdoel", {"width": 1}, "mdoel.width is no field: did you mean model.width?"),
        ("model", 3, "model=3 is no group of fields"),
        ("lr", {"peak": 1}, "lr.peak is no field"),
        ("lr", Path("x"), "lr=.*must be a plain number"),
        ("lr", config_dict.placeholder(float), "lr=None must be a number"),
        ("lr", config_dict.required_placeholder(float), "not set"),
    ],
)
def test_what_an_own_config_file_may_do_wrong(field, value, said):
    """A ConfigDict takes any field and, here, any value."""
    settings = default.get_config()
    with settings.ignore_type():
        settings[field] = value
    with pytest.raises(ConfigError, match=said) as error:
        resolve(settings)
    assert "\n" not in str(error.value)


def test_a_field_that_was_renamed_is_told():
    settings = default.get_config()
    settings.schedule.warmup_epochs = 3.0
    with pytest.raises(ConfigError, match="now schedule.warmup, a share of the epochs"):
        resolve(settings)


def test_a_misspelt_or_missing_field_is_told():
    """In a `config.json` or a program; a ConfigDict refuses them itself."""

    def told(change, match):
        fields = copy.deepcopy(dict(resolve(default.get_config()).fields))
        change(fields)
        with pytest.raises(ConfigError, match=match):
            config.build(fields)

    told(lambda f: f["augment"].update(corp=4), r"augment\.corp .* mean augment\.crop")
    told(lambda f: f["model"].update(name="x"), r"model\.name is no field")
    told(lambda f: f["augment"].pop("crop"), r"augment\.crop is missing")
    told(lambda f: f.update(steps=1), "steps is no field")
    for group in {*config.GROUPS, "epochs"} - {"init", "mesh"}:  # older runs lack them
        told(lambda f, group=group: f.pop(group), f"{group} is missing")


def test_a_recipe_can_be_a_key():
    """Lists of `config.json` become tuples, so that its parts can be hashed."""
    resolved = resolve(default.get_config())
    assert resolved.model.hidden == (4096, 4096)
    assert resolved.schedule.boundaries == (60, 120, 160)
    hash((resolved.model, resolved.augment, resolved.optimizer, resolved.schedule))


def test_the_old_name_of_a_split_is_read():
    settings = default.get_config()
    settings.data.validation = "blog"
    resolved = resolve(settings)
    assert resolved.data.validation == "sklearn_80_20"
    assert resolved.fields["data"]["validation"] == "sklearn_80_20"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("cifar10", "cifar10"),
        ("cifar10:3.0.2", "cifar10"),
        ("cifar10_sample", "cifar10"),
        ("cifar100", "data"),
        ("photos", "data"),
    ],
)
def test_statistics_are_the_published_ones_or_the_data_s_own(name, expected):
    settings = default.get_config()
    settings.data.name = name
    resolved = resolve(settings)
    assert resolved.augment.normalize == expected
    assert resolved.fields["augment"]["normalize"] == expected
    settings.augment.normalize = "imagenet"
    assert resolve(settings).augment.normalize == "imagenet"


def test_a_recipe_knows_the_numbers_of_its_data():
    """Of the training split alone: half of its pixels 51, half 153; NumPy by hand."""
    images = np.full((4, 8, 8, 3), 51, np.uint8)
    images[2:] = 153
    split = Split(images, np.zeros(4, np.int32))
    black = Split(images[:2] * 0, np.zeros(2, np.int32))
    settings = default.get_config()
    settings.data.name, settings.model.variant = "photos", "conv3-8 |"
    dataset = Dataset("photos", tuple("ab"), split, black, black)
    augment = recipe.build(resolve(settings), dataset, steps_per_epoch=1).augment
    assert augment.measured == (pytest.approx((0.4,) * 3), pytest.approx((0.2,) * 3))
    seen = np.asarray(augment.evaluate(images))
    np.testing.assert_allclose(seen[:, 0, 0, 0], [-1, -1, 1, 1], rtol=1e-6)
    hash(augment)
    settings.augment.normalize = "cifar10"
    named = recipe.build(resolve(settings), dataset, steps_per_epoch=1).augment
    assert named.normalize == "cifar10" and named.measured is None


def test_images_that_vanish_in_the_pools_are_told_with_the_remedy():
    split = Split(np.zeros((4, 28, 30, 3), np.uint8), np.zeros(4, np.int32))
    dataset = Dataset("digits", tuple("ab"), split, split, split)
    with pytest.raises(ConfigError, match="28 pixels.* set augment.resize=32 or more"):
        recipe.build(resolve(default.get_config()), dataset, steps_per_epoch=1)


def test_wrong_gradients_are_refused(monkeypatch):
    """XLA's own convolution in bfloat16 at a small batch; see tests/nn/test_conv.py."""
    settings = default.get_config()
    settings.model.conv, settings.model.dtype = "lax", "bfloat16"
    resolve(settings)
    settings.batch_size = 8
    with pytest.raises(ConfigError, match="model.conv=auto"):
        resolve(settings)
    monkeypatch.setattr(config.jax, "default_backend", lambda: "gpu")
    resolve(settings)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"optimizer.weight_decay": 1e6}, "at lr=0.01 .*flips its sign.*below 100"),
        (
            {"optimizer.weight_decay": 1.0, "optimizer.decay": "constant"},
            "takes 1 times .* below 1",
        ),
        ({"optimizer.weight_decay": 101.0, "optimizer.decay": "l2"}, "flips its sign"),
        ({"model.width": 1e-9}, "model.width=1e-09 leaves no channel of conv3-64"),
        ({"epochs": 10**20}, "epochs=1000.* out of range"),
        ({"seed": 2**32}, "seed=4294967296 is out of range"),
        ({"schedule.boundaries": (5, 5)}, "rising epochs"),
    ],
)
def test_a_value_that_cannot_be_meant(changes, said):
    settings = default.get_config()
    settings.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=said):
        resolve(settings)


def test_a_decay_below_that_is_taken():
    settings = default.get_config()
    settings.optimizer.weight_decay = 99.0
    resolve(settings)


SPLIT = Split(np.zeros((400, 32, 32, 3), np.uint8), np.zeros(400, np.int32))
DATASET = Dataset("x", tuple("abc"), SPLIT, SPLIT, SPLIT)


@pytest.mark.parametrize(
    "good, bad, said",
    [
        ({"augment.crop": 31}, {"augment.crop": 32}, "crop=32 must be below 32"),
        (
            {"augment.cutout": 31},
            {"augment.cutout": 32},
            "cutout=32 must be below 32, the pixels that the network sees",
        ),
        (
            {"augment.cutout": 63, "augment.resize": 64},
            {"augment.cutout": 64, "augment.resize": 64},
            "cutout=64 must be below 64",
        ),
        (
            {"epochs": 21_474_836},
            {"epochs": 21_474_837},
            "at most 21,474,836",  # (2^31 - 1) / 100
        ),
        ({"seed": 2**32 - 1}, {"model.num_classes": 2}, "3 classes"),
    ],
)
def test_what_the_data_set_does_not_allow(good, bad, said):
    for changes in (good, bad):
        settings = default.get_config()
        settings.update_from_flattened_dict(changes)
        resolved = resolve(settings)
        if changes is good:
            recipe.build(resolved, DATASET, steps_per_epoch=100)
        else:
            with pytest.raises(ConfigError, match=said):
                recipe.build(resolved, DATASET, steps_per_epoch=100)


def test_a_built_recipe_follows_the_config():
    built = recipe.build(resolve(load("speedrun")), DATASET, steps_per_epoch=100)
    assert built.label_smoothing == 0.2 and "conv1_1/kernel" in built.frozen
    built = recipe.build(resolve(load("blog")), DATASET, steps_per_epoch=100)
    assert built.model.num_classes == 3
    assert float(built.schedule(10_000)) == pytest.approx(0.01)
    state = built.plateau.init()
    for _ in range(9):  # 1e-5 / 1e-2: three drops at most
        state = built.plateau.update(state, 1.0)
    assert float(state.scale) == pytest.approx(1e-3)
