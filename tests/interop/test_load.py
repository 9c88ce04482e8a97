"""`load` of runs, and what it makes of a head; files are in `test_peers`."""

import hashlib
import json
import shutil
import sys
import tarfile
import types
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

import vgg_jax
from configs import default
from vgg_jax.data import datasets
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.interop import weights_file
from vgg_jax.interop.network import random
from vgg_jax.nn import architecture
from vgg_jax.nn.preprocessing import PREPROCESSING
from vgg_jax.nn.vgg import VGG
from vgg_jax.runs import checkpoint_record, manifest
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import claim
from vgg_jax.training import step
from vgg_jax.training.config import build
from vgg_jax.training.loop import train
from vgg_jax.training.recipe import prepared

OLD = Path(__file__).parents[1] / "runs" / "workdirs"
PEERS = Path(__file__).parent / "peers"
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 28, 24, 3), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of a small network that averages its weights."""
    config = default.get_config()
    config.update_from_flattened_dict(
        {
            "epochs": 2,
            "batch_size": 64,
            "ema_decay": 0.5,
            "data.name": "cifar10_sample",
            "data.train": "train[:128]",
            "data.validation": "train[300:400]",
            "data.test": "test[:150]",
            "augment.normalize": "data",
            "model.variant": "conv3-8 | conv3-8 |",
            "model.batch_norm": True,
            "model.head": "compact",
            "model.dtype": "float32",
            "model.conv": "lax",
        }
    )
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(config, workdir, Console(quiet=True))
    return workdir


def contents(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_run_predicts_what_it_was_tested_with(run):
    """The accuracy of `result.json`, which the run wrote of its averaged weights."""
    before = contents(run)
    with claim(run, RunRecord(run).config):  # as a training that goes on does
        network = vgg_jax.load(run)
    assert contents(run) == before
    fields = RunRecord(run).config["data"]
    names = ("name", "train", "validation", "test")
    test = datasets.load(**{n: fields[n] for n in names}).test
    logits = network(test.images)
    result = json.loads((run / "result.json").read_text())
    right = int((logits.argmax(-1) == test.labels).sum())
    assert right == round(150 * result["test"]["accuracy"])
    losses = -jax.nn.log_softmax(logits)[np.arange(150), test.labels]
    assert float(losses.mean()) == pytest.approx(result["test"]["loss"], rel=1e-5)
    assert network.class_names == tuple(result["classes"]) and network.size == 32
    mean = result["data"]["statistics"]["mean"]
    assert network.preprocessing.mean == pytest.approx(tuple(mean), abs=0)
    assert network.random_layers == () and len(network.sha256) == 64


@pytest.mark.parametrize("first_is_best", [True, False])
def test_best_last_and_one_by_its_number(run, tmp_path, rewrite_record, first_is_best):
    """The run is tested with the best: with `test_with`, unless it is said."""
    copy = shutil.copytree(run, tmp_path / "copy")
    numbers = sorted(int(path.name) for path in (copy / "checkpoints").iterdir())
    first, last = numbers[0], numbers[-1]
    for number in numbers:
        accuracy = float((number == first) == first_is_best)
        rewrite_record(copy, number, metrics={"accuracy": accuracy, "loss": 1.0})
    each = {n: vgg_jax.load(copy / "checkpoints" / str(n)).sha256 for n in numbers}
    assert len(set(each.values())) == 2 == len(numbers)
    assert vgg_jax.load(copy, checkpoint="last").sha256 == each[last]
    best = each[first if first_is_best else last]
    assert vgg_jax.load(copy, checkpoint="best").sha256 == best
    assert vgg_jax.load(copy).sha256 == best


@pytest.mark.parametrize("when", ["choosing", "reading"])
def test_a_checkpoint_that_goes_meanwhile_is_no_damage(
    when, run, tmp_path, monkeypatch
):
    """A run that goes on keeps the last two and the best; each save may replace one."""
    copy = shutil.copytree(run, tmp_path / "copy")
    gone, kept = sorted((copy / "checkpoints").iterdir(), key=lambda path: path.name)
    want = vgg_jax.load(kept).sha256
    which, read = "best" if when == "choosing" else "last", checkpoint_record.read
    if when == "reading":
        gone, kept = kept, gone
        want = vgg_jax.load(kept).sha256

    def read_late(path):
        if gone.exists() and (when == "choosing" or path == gone):
            shutil.rmtree(gone)
        return read(path)

    monkeypatch.setattr(checkpoint_record, "read", read_late)
    assert vgg_jax.load(copy, checkpoint=which).sha256 == want
    assert not gone.exists()


def test_a_run_goes_to_torchvision_and_back(run, tmp_path):
    network = vgg_jax.load(run)
    path = tmp_path / "run.safetensors"
    vgg_jax.save(network, path, convention="torchvision")
    back = vgg_jax.load(path)
    assert back.replace(variables={}) == network.replace(variables={})
    jax.tree.map(np.testing.assert_array_equal, back.variables, network.variables)


def test_a_damaged_checkpoint_is_told(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    for saved in (copy / "checkpoints").iterdir():
        listed = json.loads((saved / manifest.FILE).read_text())["files"]
        name = max((n for n in listed if n.startswith("state/")), key=listed.get)
        content = bytearray((saved / name).read_bytes())
        content[len(content) // 2] ^= 1
        (saved / name).write_bytes(content)
    with pytest.raises(vgg_jax.RunError, match="its CRC-32 is wrong"):
        vgg_jax.load(copy)


@pytest.mark.parametrize("name", ["plain-0.1.0", "whitened-0.1.0", "averaged-15e0616"])
def test_old_runs_load_as_they_resume(name, tmp_path):
    """The variables are those of the state that training restores."""
    with tarfile.open(OLD / f"{name}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    workdir = tmp_path / name.partition("-")[0]
    config = build(RunRecord(workdir).config)
    dataset, recipe, _ = prepared(config, report=lambda text: None)
    init = partial(step.init, recipe, seed=0, image_shape=dataset.train.image_shape)
    checkpoints = Checkpoints(workdir / "checkpoints")
    want = checkpoints.restore(7, jax.eval_shape(init)).variables
    checkpoints.close()
    network = vgg_jax.load(workdir, checkpoint="last")
    jax.tree.map(np.testing.assert_array_equal, dict(network.variables), want)
    assert network.preprocessing == PREPROCESSING["cifar10"]
    assert network.model.whiten == name.startswith("whitened")


def test_another_number_of_classes_replaces_the_head():
    path = PEERS / "torchvision.safetensors"
    whole = vgg_jax.load(path, preprocessing="imagenet")
    same = vgg_jax.load(path, preprocessing="imagenet", num_classes=5)
    assert same.random_layers == ()
    other, again, seeded = (
        vgg_jax.load(path, preprocessing="imagenet", num_classes=7, seed=seed)
        for seed in (0, 0, 1)
    )
    assert other.random_layers == ("fc8",) and other.model.num_classes == 7
    head = lambda network: np.asarray(network.variables["params"]["fc8"]["kernel"])
    np.testing.assert_array_equal(head(other), head(again))
    assert head(other).shape == (6, 7) and (head(other) != head(seeded)).all()
    body = lambda network: {**network.variables["params"], "fc8": {}}
    jax.tree.map(np.testing.assert_array_equal, body(other), body(whole))
    assert jax.eval_shape(other, IMAGES).shape == (2, 7)


@pytest.mark.parametrize(
    "name, size, preprocessing, needs",
    [
        ("torchvision.safetensors", 224, "imagenet", "vgg_jax"),
        ("timm_bn_float16.safetensors", 224, "imagenet", "vgg_jax"),
        ("keras.weights.h5", 0, "keras", "h5py"),  # of 28x24 pixels: not square
    ],
)
def test_what_has_the_classes_of_imagenet(
    name, size, preprocessing, needs, monkeypatch
):
    """Its preprocessing is known by its names; and D's table is called D."""
    pytest.importorskip(needs)
    table = "conv3-4 | conv3-8 conv3-8 |"
    monkeypatch.setitem(architecture.CONFIGURATIONS, "D", table)
    monkeypatch.setattr("vgg_jax.interop.network_file._IMAGENET_CLASSES", 5)
    network = vgg_jax.load(PEERS / name)
    assert network.model.variant == "D" and network.size == size
    assert network.preprocessing == PREPROCESSING[preprocessing]


@pytest.mark.parametrize("widths, side", [((4, 8), 5), ((8, 2), 3)])
def test_the_size_of_training_is_read_off_the_first_dense_layer(widths, side, tmp_path):
    """Keras' names; two pools leave a quarter of the side, whatever the widths."""
    shapes = {"block1_conv1": (3, 3, 3, widths[0])}
    shapes |= {"block2_conv1": (3, 3, *widths), "fc1": (side**2 * widths[1], 6)}
    shapes |= {"fc2": (6, 5), "predictions": (5, 7)}
    tensors = {f"{name}/kernel": np.zeros(s, "f4") for name, s in shapes.items()}
    tensors |= {f"{name}/bias": np.zeros(s[-1], "f4") for name, s in shapes.items()}
    save_file(tensors, tmp_path / "keras.safetensors")
    network = vgg_jax.load(tmp_path / "keras.safetensors", preprocessing="keras")
    assert network.size == 4 * side


def test_a_name_with_its_sum(tmp_path):
    """As torch hub's files have it: the first digits of the SHA-256."""
    content = (PEERS / "torchvision.safetensors").read_bytes()
    digits = hashlib.sha256(content).hexdigest()
    path = tmp_path / f"vgg16-{digits[:8]}.pth"
    path.write_bytes(content)
    assert weights_file._sha256(path) == digits
    with pytest.raises(RunError, match="not with the 20261103 of its name"):
        weights_file.read(path.rename(tmp_path / "vgg16-20261103.pth"))


def test_a_date_is_no_sum(tmp_path):
    file = tmp_path / "pets-20261103.safetensors"
    network = random(VGG("conv3-8 |", 3, head="compact"), "unit", size=8)
    vgg_jax.save(network, file)
    assert vgg_jax.load(file).size == 8


def test_a_path_is_no_name_of_the_zoo(tmp_path, monkeypatch):
    """`Path("./speedrun")` has no dot left."""
    monkeypatch.chdir(tmp_path)
    Path("speedrun").mkdir()
    for source in ("./speedrun", Path("./speedrun")):
        with pytest.raises(RunError, match="is a directory, and no run's workdir"):
            vgg_jax.load(source)


def test_lrn_that_the_file_does_not_tell(tmp_path, monkeypatch):
    """torchvision numbers its modules, of which none is LRN."""
    peer, file = PEERS / "torchvision.safetensors", tmp_path / "own.safetensors"
    known = vgg_jax.load(peer, preprocessing="imagenet")
    with_lrn = known.model.variant.replace("|", "LRN |", 1)
    network = vgg_jax.load(peer, preprocessing="imagenet", variant=with_lrn)
    assert network.model.variant == with_lrn
    jax.tree.map(np.testing.assert_array_equal, network.variables, known.variables)
    vgg_jax.save(network, file)
    assert vgg_jax.load(file, variant=with_lrn).model.variant == with_lrn
    with pytest.raises(ConfigError, match="is of configuration"):
        vgg_jax.load(file, variant=known.model.variant)


def test_the_hub_is_asked_only_for_what_is_named(tmp_path, monkeypatch):
    """A stand-in for huggingface_hub: what it is asked for, and where that lies."""
    asked = []

    def hf_hub_download(repository, file):
        asked.append((repository, file))
        return str(PEERS / "torchvision.safetensors")

    library = types.SimpleNamespace(
        hf_hub_download=hf_hub_download,
        errors=types.SimpleNamespace(HfHubHTTPError=OSError),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    for source in ("hf://timm/vgg16.tv_in1k", "hf://a/b/c/d.safetensors"):
        network = vgg_jax.load(source, preprocessing="imagenet")
        assert network.source == source
    assert asked == [
        ("timm/vgg16.tv_in1k", "model.safetensors"),
        ("a/b", "c/d.safetensors"),
    ]
    monkeypatch.setattr(
        library, "hf_hub_download", lambda *_: (_ for _ in ()).throw(OSError("offline"))
    )
    with pytest.raises(
        vgg_jax.RunError, match="hf://a/b could not be fetched: offline"
    ):
        vgg_jax.load("hf://a/b")
