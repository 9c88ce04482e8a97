"""Runs that start from the layers of a network: taken by name, and never read again."""

import functools
import io
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from rich.console import Console
from safetensors.numpy import load_file

from configs import default, finetune, quickstart
from tests.training.test_loop import stop_after
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.interop.load import load
from vgg_jax.interop.network import Network
from vgg_jax.interop.save import save
from vgg_jax.nn.preprocessing import PREPROCESSING, Preprocessing
from vgg_jax.nn.vgg import VGG
from vgg_jax.runs import checkpoint_record
from vgg_jax.training import init_from, loop
from vgg_jax.training.config import resolve
from vgg_jax.training.interrupt import Stopped
from vgg_jax.training.score import score

PEERS = Path(__file__).parents[1] / "interop" / "peers"
TABLE = "conv3-8 | conv3-8 |"


def network(preprocessing="unit", variant=TABLE, num_classes=4, seed=7, **fields):
    """As if trained: numbers of no initialiser, statistics that are not 0 and 1."""
    fields = {"head": "compact", "conv": "lax"} | fields
    model = VGG(variant, num_classes, **fields)
    init = functools.partial(model.init, jax.random.key(0))
    shapes = jax.eval_shape(init, jnp.zeros((1, 32, 32, 3)))
    numbers = np.random.default_rng(seed)
    draw = lambda a: jnp.asarray(numbers.uniform(0.1, 0.5, a.shape), jnp.float32)
    variables = {k: shapes[k] for k in ("params", "batch_stats") if k in shapes}
    if isinstance(preprocessing, str):
        preprocessing = PREPROCESSING[preprocessing]
    return Network(jax.tree.map(draw, variables), model, preprocessing, size=32)


def tuned(path, **fields):
    """Two epochs of 4 steps from the network of a file, fc8 new."""
    config = default.get_config()
    config.update_from_flattened_dict(
        {
            "epochs": 2,
            "batch_size": 16,
            "init.path": str(path),
            "init.layers": ("conv*", "bn*"),
            "data.name": "cifar10_sample",
            "data.train": "train[:64]",
            "data.validation": "train[64:128]",
            "data.test": "test[:64]",
            "model.variant": TABLE,
            "model.batch_norm": True,
            "model.head": "compact",
            "model.conv": "lax",
            "model.dtype": "float32",
            "schedule.name": "constant",
            **fields,
        }
    )
    return config


def run(config, workdir):
    console = Console(record=True, width=300, file=io.StringIO())
    result = loop.train(config, workdir, console)
    return result, console.export_text()


def arrays(variables):
    named = flatten_dict(variables, sep="/")
    return {name: np.asarray(array) for name, array in named.items()}


def taken(there, patterns=("*",), **fields):
    """The weights of a network with those of another in it, and what they were."""
    first = network(seed=1, **fields).variables
    first = {"params": first["params"], "batch_stats": first.get("batch_stats", {})}
    return init_from.take(**first, network=there, layers=patterns), arrays(first)


def same(ours, theirs):
    """Layers whose every array is the other's."""
    pairs = [(n.split("/")[-2], (a == theirs.get(n)).all()) for n, a in ours.items()]
    return {layer for layer, _ in pairs if all(s for n, s in pairs if n == layer)}


def test_layers_come_by_name_and_their_statistics_with_them():
    there = network(batch_norm=True)
    got, first = taken(there, ("conv*", "bn1_1"), batch_norm=True)
    result = arrays({"params": got.params, "batch_stats": got.batch_stats})
    assert result.keys() == first.keys() and "batch_stats/bn1_1/var" in result
    assert same(result, arrays(there.variables)) == {"conv1_1", "conv2_1", "bn1_1"}
    assert same(result, first) == set(got.new) == {"bn2_1", "fc8"}
    assert got.arrays == 8


def test_a_parameter_comes_without_its_layer():
    got, _ = taken(network(), ("*/kernel", "fc8"))
    assert got.new == ("conv1_1", "conv2_1") and got.arrays == 4


def test_a_deeper_network_starts_from_a_shallow_one():
    """Section 3.1: "the first four convolutional layers and the last three fully-
    connected layers" of the deeper networks are A's, the others are random."""
    narrow = {"head": "paper", "hidden": (8, 8), "width": 1 / 32}
    a = network(variant="A", **narrow)
    paper = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc*")
    got, first = taken(a, paper, variant="D", **narrow)
    others = {"conv1_2", "conv2_2", "conv3_3"}
    others |= {f"conv{stage}_{i}" for stage in (4, 5) for i in (1, 2, 3)}
    result = arrays({"params": got.params})
    assert same(result, arrays(a.variables)) == {*paper[:4], "fc6", "fc7", "fc8"}
    assert same(result, first) == set(got.new) == others
    with pytest.raises(
        ConfigError, match="its conv1_2/bias, .* more are not in this network"
    ):
        taken(network(variant="D", **narrow), variant="A", **narrow)


REFUSED = {
    "classes": (
        {"num_classes": 5}, {}, ("*",),
        r"has 5 classes and this run 4: for a new fc8, "
        r"""--config.init.layers="\('conv\*', 'bn\*'\)"$""",
    ),
    "shape": (
        {"width": 2.0}, {}, ("conv*",),
        r"its conv1_1/kernel is \[3, 3, 3, 16\] and this network's \[3, 3, 3, 8\] "
        r"\(and 3 more differ\)$",
    ),
    "norm": (
        {}, {"batch_norm": False}, ("*",),
        r"its bn1_1/bias, bn1_1/scale, bn2_1/bias and 1 more are not in this network$",
    ),
    "pattern": (
        {}, {}, ("conv9*",),
        "init.layers='conv9[*]' matches no parameter; the layers are: bn1_1, .*fc8$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_told(case):
    theirs, ours, patterns, said = REFUSED[case]
    both = {"batch_norm": True}
    with pytest.raises(ConfigError, match=said) as error:
        taken(network(**both | theirs), patterns, **both | ours)
    assert "\n" not in str(error.value)


def test_random_layers_are_not_taken_for_trained_ones():
    there = network().replace(random_layers=("fc8",))
    with pytest.raises(ConfigError, match="its fc8 is random: nobody trained it"):
        taken(there)
    assert taken(there, ("conv*",))[0].new == ("fc8",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of weights, a run from it, its result and what it said."""
    directory = tmp_path_factory.mktemp("init")
    bgr = Preprocessing((0.4,) * 3, (0.3,) * 3, "BGR")
    path = directory / "there.safetensors"
    save(network(bgr, batch_norm=True, pool="average"), path)
    config = tuned(path, ema_decay=0.5)
    return path, directory / "run", *run(config, directory / "run")


def test_a_run_says_and_keeps_what_it_starts_from(whole):
    path, workdir, result, said = whole
    there = load(path)
    assert (
        f"init: 12 of 14 arrays from {path} (sha256 {there.sha256[:12]}), new: fc8; "
        "there, model.pool='average' (here 'max')"
    ) in said
    assert result["init"]["sha256"] == there.sha256
    assert f"{path}, SHA-256 {there.sha256}" in (workdir / "report.html").read_text()
    newest = checkpoint_record.latest(workdir / "checkpoints")
    record = checkpoint_record.read(workdir / "checkpoints" / str(newest))
    assert record.init == json.loads(json.dumps(result["init"]))
    assert load(workdir).preprocessing == there.preprocessing  # adopted, BGR and all


def test_the_first_state_is_the_file_s(whole, tmp_path, monkeypatch):
    """Averages of weights and statistics too, before any update."""
    states = []

    def kept(session, state):
        states.append(state)
        raise Stopped("here", 2)

    monkeypatch.setattr(loop, "_fit", kept)
    with pytest.raises(Stopped):
        run(tuned(whole[0], ema_decay=0.5), tmp_path)
    source = arrays(load(whole[0]).variables)
    for variables in (
        {"params": states[0].params, "batch_stats": states[0].batch_stats},
        states[0].variables,  # the averages
    ):
        for name, array in arrays(variables).items():
            if "fc8" not in name:
                np.testing.assert_array_equal(array, source[name])
    assert len(source) == 14


def test_a_stopped_run_resumes_to_the_same_bits_without_the_file(
    whole, tmp_path, monkeypatch
):
    path, expected = tmp_path / "gone.safetensors", whole[1]
    shutil.copy(whole[0], path)
    config = tuned(path, ema_decay=0.5)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stopped):
            run(config, tmp_path / "run")
    path.unlink()
    result, said = run(config, tmp_path / "run")
    assert "resuming after step" in said and "init:" not in said
    ours, theirs = (arrays(load(w).variables) for w in (tmp_path / "run", expected))
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
    assert result["init"]["sha256"] == whole[2]["init"]["sha256"]
    scored = score(tmp_path / "run", checkpoint="best", console=Console(quiet=True))
    assert scored[1].accuracy == pytest.approx(
        max(r["val_accuracy"] for r in epochs(tmp_path / "run"))
    )


def epochs(workdir):
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == "epoch"]


@pytest.mark.slow
def test_a_linear_probe_from_a_run_leaves_its_layers_as_they_are(whole, tmp_path):
    """All layers are taken from a workdir, averages as they are tested; fc8 trains."""
    frozen = {"init.layers": ("*",), "model.frozen": ("conv*", "bn*")}
    _, said = run(tuned(whole[1], **frozen, epochs=1, ema_decay=0.5), tmp_path)
    assert f"init: 14 of 14 arrays from {whole[1]} (sha256 " in said
    assert "), new: none\n" in said
    ours, theirs = (arrays(load(path).variables) for path in (tmp_path, whole[1]))
    assert same(ours, theirs) == {"conv1_1", "conv2_1", "bn1_1", "bn2_1"}


WRONG = {
    "normalize": (
        {"augment.normalize": "cifar10"},
        "preprocessing='cifar10', but .* was trained with 'mean .*BGR': leave "
        r"preprocessing out \(in a config, augment.normalize is it",
    ),
    "classes": (
        {"init.layers": ("*",)},
        r"init.path=.*: it has 4 classes and this run 10: for a new fc8, --config.*; "
        r"there, model.pool='average' \(here 'max'\)$",
    ),
    "missing": ({"init.path": "runs/nowhere"}, "runs/nowhere"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_run_that_cannot_start_so_leaves_nothing(case, whole, tmp_path):
    fields, said = WRONG[case]
    with pytest.raises((ConfigError, RunError), match=said) as error:
        run(tuned(whole[0], **fields), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("name", [n for n in PREPROCESSING if n != "keras"])
def test_the_network_s_own_normalisation_may_be_said(name, tmp_path):
    save(network(name), tmp_path / "there.safetensors")
    init = init_from.Init(path=str(tmp_path / "there.safetensors"))
    for normalize in ("init", name):
        start = init_from.find(init, tmp_path, normalize)
        assert start.preprocessing == PREPROCESSING[name]
    with pytest.raises(ConfigError, match="normalize='data', and the network"):
        init_from.find(init, tmp_path, "data")


def test_auto_adopts_only_where_there_is_a_network():
    settings = default.get_config()
    assert resolve(settings).augment.normalize == "cifar10"
    settings.init.path = "runs/x"
    assert resolve(settings).augment.normalize == "init"
    settings.init.path, settings.augment.normalize = "", "init"
    with pytest.raises(ConfigError, match="there is no init.path"):
        resolve(settings)


def test_the_config_for_it_asks_for_a_path():
    settings = finetune.get_config("quickstart")
    with pytest.raises(ConfigError, match="init.layers=.* or set init.path to a run"):
        resolve(settings)
    settings.init.path = "runs/x"
    assert resolve(settings).model == resolve(quickstart.get_config()).model
    with pytest.raises(ConfigError, match="choose one of: quickstart, speedrun, vgg16"):
        finetune.get_config("vgg99")


def test_a_file_of_torchvision_s_that_does_not_say_what_it_expects(tmp_path):
    """It has 5 classes, so its images need not be ImageNet's: the config says it.

    The file is torchvision 0.28's own (tests/interop/peers), read here by safetensors.
    """
    path = PEERS / "torchvision_bn.safetensors"
    init = init_from.Init(path=str(path))
    with pytest.raises(ConfigError, match="and has 5 classes, .*augment.normalize"):
        init_from.find(init, tmp_path, "init")
    start = init_from.find(init, tmp_path, "imagenet")
    assert start.preprocessing == PREPROCESSING["imagenet"]
    fields = {"head": "adaptive", "hidden": (12, 6), "batch_norm": True}
    table = "conv3-4 | conv3-8 conv3-8 |"
    got, _ = taken(start.network, variant=table, num_classes=5, **fields)
    assert got.new == () and got.arrays == 6 * 2 + 3 * 4
    kernel = load_file(path)["features.0.weight"].transpose(2, 3, 1, 0)  # OIHW
    np.testing.assert_array_equal(got.params["conv1_1"]["kernel"], kernel)
