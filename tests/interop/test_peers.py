"""Files of torchvision, timm and Keras give the activations those programs computed.

`peers/<program>.npz` holds an image and what the program itself made of it
(`benchmarks/weight_fixtures.py`; the versions stand in `peers/versions.json`).
"""

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vgg_jax
from vgg_jax.interop.tensor_names import COUNTER

PEERS = Path(__file__).parent / "peers"
TABLE = "conv3-4 | conv3-8 conv3-8 |"
# File -> the library that reads it, whose activations it has, preprocessing, batch
# norm, head.
FILES = {
    "torchvision.safetensors": ("", "torchvision", "imagenet", False, "adaptive"),
    "torchvision_bn.safetensors": ("", "torchvision_bn", "imagenet", True, "adaptive"),
    "timm_bn_float16.safetensors": (
        "",
        "timm_bn_float16",
        "imagenet",
        True,
        "adaptive",
    ),
    "torchvision_bn.pth": ("torch", "torchvision_bn", "imagenet", True, "adaptive"),
    "torchvision_bn-old.pth": ("torch", "torchvision_bn", "imagenet", True, "adaptive"),
    "keras.weights.h5": ("h5py", "keras", "keras", False, "paper"),
    "keras_whole.h5": ("h5py", "keras", "keras", False, "paper"),
    "keras_published.h5": ("h5py", "keras", "keras", False, "paper"),
}


def file_of_a_peer(name):
    """The path of a file; skips where what reads it is not installed."""
    if library := FILES[name][0]:
        pytest.importorskip(library)
    return PEERS / name


def error(found, want):
    """The largest difference, as a share of the largest value."""
    assert found.shape == want.shape
    return np.abs(np.asarray(found) - want).max() / np.abs(want).max()


@pytest.mark.parametrize("name", FILES)
def test_activations_are_those_of_the_program(name):
    _, program, preprocessing, batch_norm, head = FILES[name]
    path = file_of_a_peer(name)
    network = vgg_jax.load(path, preprocessing=preprocessing)
    assert network.model.variant == TABLE and network.model.num_classes == 5
    assert (network.model.batch_norm, network.model.head) == (batch_norm, head)
    assert network.random_layers == () and network.source == str(path)
    assert network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {a.dtype for a in jax.tree.leaves(network.variables)} == {jnp.dtype("f4")}
    expected = dict(np.load(PEERS / f"{program}.npz"))
    images = expected.pop("images")
    found = network.activations(images, tuple(expected))
    assert len(expected) >= 8
    for layer, want in expected.items():
        assert error(found[layer], want) < 1e-5, layer


@pytest.mark.parametrize("name", [name for name in FILES if not FILES[name][0]])
def test_saving_gives_the_tensors_of_the_program_back(name, tmp_path):
    """Names, shapes and values of the program's own file, bit for bit."""
    program = FILES[name][1]
    convention, half = program.partition("_")[0], "float16" in program
    network = vgg_jax.load(PEERS / name, preprocessing="imagenet")
    path = tmp_path / "back.safetensors"
    dtype = "float16" if half else "float32"
    vgg_jax.save(network, path, convention=convention, dtype=dtype)
    back, want = load_file(path), load_file(PEERS / name)
    assert back.keys() == want.keys()
    for key, value in want.items():
        average = "running" in key  # these stay float32
        assert back[key].dtype == (np.float32 if average else value.dtype)
        if not key.endswith(COUNTER):
            np.testing.assert_array_equal(back[key], value)


def headless(name, kept, tmp_path, rename=lambda key: key):
    """A file with some of the tensors of another one."""
    tensors = load_file(PEERS / name)
    path = tmp_path / "part.safetensors"
    save_file({rename(k): v for k, v in tensors.items() if k.startswith(kept)}, path)
    return path


@pytest.mark.parametrize(
    "name, kept, rename, head",
    [
        ("torchvision", "features.", lambda key: key, "compact"),
        ("torchvision_bn", "features.", lambda k: k[len("features.") :], "compact"),
        ("timm_bn_float16", ("features.", "pre_logits."), lambda k: k, "adaptive"),
        ("torchvision", ("features.", "classifier"), lambda k: "module." + k, "whole"),
    ],
)
def test_parts_and_prefixes(name, kept, rename, head, tmp_path):
    """`vgg.features.state_dict()`, timm's `num_classes=0`, PyTorch's DataParallel."""
    path = headless(f"{name}.safetensors", kept, tmp_path, rename)
    network = vgg_jax.load(path, preprocessing="imagenet")
    expected = np.load(PEERS / f"{name}.npz")
    relu = {"torchvision": "features.6"}.get(name, "features.9")
    (found,) = network.activations(expected["images"], (relu,)).values()
    assert error(found, expected[relu]) < 1e-5
    if head == "whole":
        assert network(expected["images"]).shape == (1, 5)
        return
    assert network.model.head == head
    with pytest.raises(vgg_jax.ConfigError, match="has no fc8: .* num_classes=K"):
        network(expected["images"])
    new = vgg_jax.load(path, preprocessing="imagenet", num_classes=3)
    assert new.random_layers == ("fc8",) and new(expected["images"]).shape == (1, 3)
