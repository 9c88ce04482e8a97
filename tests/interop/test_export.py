"""A network that has left JAX computes what it computed there."""

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vgg_jax
from vgg_jax.cli import command
from vgg_jax.interop import classifier, onnx_file, stablehlo
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

PETS = ("cat", "dog", "<owl>")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
# A dozen lines, without this package: docs/serve.md has such a program.
ALONE = """
import json, sys, zipfile
import jax, numpy as np
sys.modules["vgg_jax"] = None
with zipfile.ZipFile(sys.argv[1]) as file:
    card = json.loads(file.read("card.json"))
    program = jax.export.deserialize(bytearray(file.read("program.stablehlo")))
images = np.load(sys.argv[2])
for count in (1, 2, len(images)):
    probabilities = np.asarray(program.call(images[:count]))
np.save(sys.argv[3], probabilities)
print(json.dumps([card, program.platforms]))
"""


def pets(**fields):
    """A network whose answers differ: batch norm, two layers, BGR."""
    fields = {"head": "compact", "batch_norm": True, "dtype": jnp.bfloat16} | fields
    model = VGG("conv3-8 | conv3-16 |", 3, logit_scale=1e-4, **fields)
    made = random(model, "keras", size=8, class_names=PETS)
    spread = lambda x: x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) % 7 / 7
    return made.replace(variables=jax.tree.map(spread, made.variables), source="here")


def expected(network):
    """Probabilities by the network itself: what `vgg_jax.load(...)(images)` gives."""
    network = network.configured(dtype=jnp.float32, conv="lax")
    probabilities = np.asarray(jax.nn.softmax(network(IMAGES)))
    assert np.ptp(probabilities, axis=0).max() > 0.01  # the images are told apart
    return probabilities


def test_stablehlo_runs_where_only_jax_is(tmp_path):
    pytest.importorskip("flatbuffers")
    network, path = pets(), tmp_path / "pets.zip"
    stablehlo.save(network, path)
    np.save(tmp_path / "images.npy", IMAGES)
    names = [path, tmp_path / "images.npy", tmp_path / "out.npy"]
    finished = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, names)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    card, platforms = json.loads(finished.stdout)
    np.testing.assert_allclose(np.load(names[-1]), expected(network), atol=1e-6)
    assert platforms == ["cpu", "cuda", "tpu"]
    assert card["class_names"] == [*PETS] and card["source"] == "here"
    assert card["preprocessing"]["order"] == "BGR"
    assert card["input"]["shape"] == ["B", 8, 8, 3]
    before = path.read_bytes()
    stablehlo.save(network, path, overwrite=True)
    assert path.read_bytes() == before  # no line numbers of the caller
    with zipfile.ZipFile(path) as file:
        assert b".py" not in file.read(stablehlo.PROGRAM)  # no paths of this machine


@pytest.mark.parametrize("layout", classifier.LAYOUTS)
def test_onnx_computes_the_same(layout, tmp_path):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    network, path = pets(), tmp_path / "pets.onnx"
    onnx_file.save(network, path, layout=layout)
    session = runtime.InferenceSession(path)
    images = IMAGES if layout == "nhwc" else IMAGES.transpose(0, 3, 1, 2)
    for count in (1, len(images)):
        logits, probabilities = session.run(None, {"images": images[:count]})
    np.testing.assert_allclose(probabilities, expected(network), atol=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(logits), probabilities, atol=1e-6)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == [*PETS] and said["source"] == "here"
    assert json.loads(said["preprocessing"])["order"] == "BGR"
    assert session.get_inputs()[0].shape == ["B", *images.shape[1:]]


ARTEFACTS = Path(__file__).parent / "artefacts"  # made by version 0.2.0 (make.py)


def test_an_old_stablehlo_still_runs():
    """Kept as it was written: jax.export must read it, with the same numbers."""
    pytest.importorskip("flatbuffers")
    kept = np.load(ARTEFACTS / "sample.npz")
    with zipfile.ZipFile(ARTEFACTS / "net.zip") as file:
        program = jax.export.deserialize(bytearray(file.read(stablehlo.PROGRAM)))
        card = json.loads(file.read(stablehlo.CARD))
    found = program.call(kept["images"])
    np.testing.assert_allclose(found, kept["probabilities"], atol=1e-5)
    assert card["version"] == "0.2.0" and len(card["class_names"]) == found.shape[1]


@pytest.mark.parametrize("layout", classifier.LAYOUTS)
def test_an_old_onnx_still_runs(layout):
    runtime = pytest.importorskip("onnxruntime")
    kept = np.load(ARTEFACTS / "sample.npz")
    session = runtime.InferenceSession(ARTEFACTS / f"net-{layout}.onnx")
    images = kept["images"]
    images = images if layout == "nhwc" else images.transpose(0, 3, 1, 2)
    _, found = session.run([*classifier.OUTPUTS], {classifier.INPUT: images})
    np.testing.assert_allclose(found, kept["probabilities"], atol=1e-5)


def test_the_old_weights_still_give_these_numbers():
    """The same network as safetensors, by this version."""
    kept = np.load(ARTEFACTS / "sample.npz")
    network = vgg_jax.load(ARTEFACTS / "net.safetensors")
    found = jax.nn.softmax(classifier.classifier(network)(kept["images"])[0])
    np.testing.assert_allclose(found, kept["probabilities"], atol=1e-5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of pets: whole; without names and size; with a head for one size."""
    directory = tmp_path_factory.mktemp("weights")
    for name, network in {
        "pets": pets(),
        "plain": pets().replace(class_names=(), size=0),
        "paper": pets(head="paper", hidden=(4, 4)),
        "grey": random(
            VGG("conv3-8 |", 3, head="compact"),
            vgg_jax.nn.preprocessing.Preprocessing((0.5,), (0.5,)),
            size=8,
        ),
    }.items():
        vgg_jax.save(network, directory / f"{name}.safetensors")
    return directory


def export(weights, *options):
    command.main(["export", f"--weights={weights}", *options])


def test_the_command_writes_what_was_asked_for(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "--to=safetensors", "--dtype=float16", "--convention=torchvision"
    export(weights / "pets.safetensors", *options)
    assert capsys.readouterr().out.startswith("pets.safetensors: 0.0 MB")
    network = vgg_jax.load("pets.safetensors")
    assert network.class_names == PETS and network.size == 8
    if find_spec("flatbuffers"):
        export(weights / "plain.safetensors", "--to=stablehlo", "--size=16")
        assert "they are numbers" in capsys.readouterr().out
        with zipfile.ZipFile("plain.zip") as file:
            card = json.loads(file.read(stablehlo.CARD))
        assert card["size"] == 16 and card["class_names"] == []


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("pets", "--to=keras", "--to='keras' is unknown; choose one of: stablehlo, o"),
        ("pets", "--to=onnx --layout=chwn", "layout='chwn' is unknown; choose one of"),
        ("pets", "--to=onnx --dtype=float16", "--dtype is an option of --to=safetens"),
        ("pets", "--to=html --layout=nchw", "--layout is an option of --to=onnx only"),
        ("pets", "--to=html --out=page.txt", "path='page.txt' must end in .html"),
        ("pets", "--to=html --out=no/page.html", "there is no directory no: make it"),
        ("pets", "--to=onnx --out={taken}", "is there already: overwrite=True (--ov"),
        ("pets", "--to=html --runtime=no", "onnxruntime-web is not in no: npm install"),
        (
            "pets",
            "--to=html",
            "not in node_modules: npm install onnxruntime-web@1.30",
        ),
        ("plain", "--to=onnx", "does not say how large its images are: size=224 (--si"),
        ("paper", "--to=onnx --size=16", "images of 16x16 give fc6 256 values"),
        ("pets", "--to=onnx --size=-1", "size=-1 must be at least 1"),
        ("pets", "--to=onnx --size=3", "image"),
        ("none", "--to=onnx", "none.safetensors"),
    ],
)
def test_bad_input_is_one_line(
    name, options, said, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.onnx").touch()
    words = options.format(taken="taken.onnx").split()
    with pytest.raises(SystemExit):
        export(weights / f"{name}.safetensors", *words)
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and said in shown and shown.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"taken.onnx"}


@pytest.mark.parametrize(
    "module, to, extra",
    [("flatbuffers", "stablehlo", "export"), ("jax2onnx", "onnx", "onnx")],
)
def test_a_missing_library_is_named(module, to, extra, weights, monkeypatch, capsys):
    monkeypatch.chdir(weights)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit):
        export(weights / "pets.safetensors", f"--to={to}")
    shown = capsys.readouterr().err
    assert f"needs {module}" in shown and f"pip install 'vgg_jax[{extra}]'" in shown
