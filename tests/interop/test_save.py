"""A network that was saved is the network that is loaded: every field, every bit."""

import hashlib
import json
import tracemalloc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import vgg_jax
from benchmarks import wrong_uses
from vgg_jax.interop.arrays import checksum
from vgg_jax.nn.architecture import HEADS
from vgg_jax.nn.preprocessing import PREPROCESSING, Preprocessing

TABLE = "conv3-4 | conv3-8 conv1-8 |"
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 3), np.uint8)


def small(**fields):
    """A network whose values are not trivial, made without compiling anything."""
    fields = {"hidden": (6, 5), "batch_norm": True, "conv": "lax"} | fields
    model = vgg_jax.VGG(TABLE, 3, **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(IMAGES.shape))
    shapes.pop("intermediates", None)
    rng = np.random.default_rng(0)
    draw = lambda s: jnp.asarray(rng.uniform(0.5, 1.5, s.shape), jnp.float32)
    return vgg_jax.Network(
        variables=jax.tree.map(draw, shapes),
        model=model,
        preprocessing=PREPROCESSING["cifar10"],
        size=28,
        class_names=("a", "b", "c"),
        source="elsewhere.pth",
        sha256="12" * 32,
        random_layers=("fc8",),
    )


def assert_same(one, other):
    assert one.replace(variables={}) == other.replace(variables={})
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


@pytest.mark.parametrize("convention", ["vgg_jax", "torchvision", "timm"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_a_round_trip_changes_nothing(head, batch_norm, convention, tmp_path):
    if (head, convention) == ("compact", "timm"):
        pytest.skip("timm has no such head: test_wrong_uses")
    path = tmp_path / "vgg.safetensors"
    saved = small(head=head, batch_norm=batch_norm)
    vgg_jax.save(saved, path, convention=convention)
    assert_same(vgg_jax.load(path), saved)


@pytest.mark.parametrize(
    "fields",
    [
        {"pool_early": True, "head": "compact"},
        {"whiten": True, "head": "compact"},
        {"norm_scale": False, "head": "adaptive"},
        {"hidden": (7,), "head": "adaptive"},
        {"hidden": (), "head": "adaptive"},
        {"dtype": jnp.bfloat16, "dropout": 0.25, "kernel_init": "torchvision"},
    ],
    ids=str,
)
@pytest.mark.parametrize("convention", ["vgg_jax", "torchvision"])
def test_other_networks_come_back_too(fields, convention, tmp_path):
    path = tmp_path / "vgg.safetensors"
    saved = small(**fields)
    vgg_jax.save(saved, path, convention=convention)
    assert_same(vgg_jax.load(path), saved)


@pytest.mark.parametrize(
    "fields", [{"pool_early": True}, {"whiten": True}, {}], ids=str
)
def test_without_its_metadata_the_same_network_is_inferred(fields, tmp_path):
    """The order of modules and what has no batch norm show in names of torchvision."""
    saved = small(head="compact", **fields)
    vgg_jax.save(saved, tmp_path / "a.safetensors", convention="torchvision")
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    loaded = vgg_jax.load(tmp_path / "b.safetensors", preprocessing="cifar10")
    np.testing.assert_allclose(loaded(IMAGES), saved(IMAGES), rtol=1e-6)
    for name in ("pool_early", "whiten", "batch_norm", "head", "variant"):
        assert getattr(loaded.model, name) == getattr(saved.model, name)


def test_everything_known_is_in_the_metadata(tmp_path):
    """Read by another program: JSON under `vgg_jax`."""
    path = tmp_path / "vgg.safetensors"
    own = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "BGR")
    saved = small(head="compact").replace(
        preprocessing=own, source="runs/one", sha256="ab" * 32, random_layers=()
    )
    vgg_jax.save(saved, path)
    with safe_open(path, framework="numpy") as file:
        said = json.loads(file.metadata()["vgg_jax"])
        assert "conv1_1/kernel" in file.keys() and "bn2_2/mean" in file.keys()
    assert said["preprocessing"] == {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "order": "BGR",
    }
    assert said["class_names"] == ["a", "b", "c"] and said["size"] == 28
    assert said["source"] == "runs/one" and said["sha256"] == "ab" * 32
    assert said["version"] == vgg_jax.__version__
    assert said["model"]["variant"] == TABLE
    assert_same(vgg_jax.load(path), saved)


def test_a_scale_of_the_logits_goes_into_the_last_layer(tmp_path):
    """torchvision's module has no such factor; what it computes is the same."""
    path = tmp_path / "vgg.safetensors"
    saved = small(head="compact", logit_scale=0.125)
    vgg_jax.save(saved, path, convention="torchvision")
    loaded = vgg_jax.load(path)
    assert loaded.model.logit_scale == 1
    np.testing.assert_allclose(loaded(IMAGES), saved(IMAGES), rtol=1e-6)
    kernel = load_file(path)["classifier.weight"].T
    want = np.asarray(saved.variables["params"]["fc8"]["kernel"]) / 8
    np.testing.assert_array_equal(kernel, want)


def test_a_norm_without_a_scale_has_a_scale_of_one(tmp_path):
    """`torch.nn.BatchNorm2d` has a weight, which multiplies."""
    path = tmp_path / "vgg.safetensors"
    vgg_jax.save(
        small(norm_scale=False, head="compact"), path, convention="torchvision"
    )
    written = load_file(path)
    np.testing.assert_array_equal(written["features.1.weight"], np.ones(4))
    assert written["features.1.num_batches_tracked"].shape == ()
    written["features.1.weight"] *= 2  # by hand: the network has no place for it
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    said = json.loads(metadata["vgg_jax"]) | {"tensors_sha256": checksum(written)}
    save_file(written, path, {"vgg_jax": json.dumps(said)})
    with pytest.raises(vgg_jax.RunError, match="other values than 1 in features.1"):
        vgg_jax.load(path)


@pytest.mark.parametrize("dtype, rtol", [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_the_bytes(dtype, rtol, tmp_path):
    """Each value is within half a unit in the last place of its type."""
    path, saved = tmp_path / "vgg.safetensors", small(head="compact")
    vgg_jax.save(saved, path, dtype=dtype)
    loaded = vgg_jax.load(path)
    assert loaded.replace(variables={}) == saved.replace(variables={})
    assert {a.dtype for a in jax.tree.leaves(loaded.variables)} == {jnp.dtype("f4")}
    close = partial(np.testing.assert_allclose, rtol=rtol)
    jax.tree.map(close, loaded.variables, saved.variables)
    assert load_file(path)["conv1_1/kernel"].dtype == jnp.dtype(dtype)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "vgg.safetensors"
    vgg_jax.save(small(head="compact"), path)
    before = path.read_bytes()
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(full))
    with pytest.raises(vgg_jax.RunError, match="No space left on device"):
        vgg_jax.save(small(head="adaptive"), path, overwrite=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_loaded_network_goes_through_jit(tmp_path):
    path, saved = tmp_path / "vgg.safetensors", small(head="compact")
    vgg_jax.save(saved, path)
    call = jax.jit(lambda network, images: network(images))
    np.testing.assert_allclose(
        call(vgg_jax.load(path), IMAGES), saved(IMAGES), rtol=1e-6
    )


def test_running_averages_stay_float32(tmp_path):
    """float16 ends at 65,504 and 6e-8; a variance is beyond where a channel is."""
    saved, path = small(head="compact"), tmp_path / "vgg.safetensors"
    stats = saved.variables["batch_stats"]
    stats["bn1_1"]["var"] = jnp.array([1e6, 1e-9, 1.0, 2.0])
    vgg_jax.save(saved, path, dtype="float16")
    loaded = vgg_jax.load(path).variables["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, loaded, stats)


def test_numbers_of_numpy_and_paths_are_saved(tmp_path):
    path, saved = tmp_path / "vgg.safetensors", small(head="compact")
    model = saved.model.clone(num_classes=np.int64(3))
    saved = saved.replace(model=model, size=np.int64(28), source=path)
    vgg_jax.save(saved, path)
    assert_same(vgg_jax.load(path), saved.replace(source=str(path)))


@pytest.mark.parametrize("convention", ["torchvision", "timm"])
def test_bgr_goes_into_the_first_layer(convention, tmp_path):
    """What feeds torchvision's networks has no order of channels, only statistics."""
    path, saved = tmp_path / "vgg.safetensors", small(head="adaptive")
    saved = saved.replace(preprocessing=PREPROCESSING["keras"])
    vgg_jax.save(saved, path, convention=convention)
    loaded = vgg_jax.load(path)
    keras = PREPROCESSING["keras"]
    assert loaded.preprocessing == Preprocessing(keras.mean, keras.std, "RGB")
    kernel = np.asarray(saved.variables["params"]["conv1_1"]["kernel"])
    written = load_file(path)["features.0.weight"]
    np.testing.assert_array_equal(written, kernel[:, :, ::-1].transpose(3, 2, 0, 1))
    np.testing.assert_allclose(loaded(IMAGES), saved(IMAGES), rtol=1e-5)


def test_other_weights_are_not_those_of_the_file(tmp_path):
    """A program that trained says so; what is loaded has the sum of its file."""
    path, saved = tmp_path / "vgg.safetensors", small(head="compact")
    vgg_jax.save(saved.with_variables(saved.variables), path)
    loaded = vgg_jax.load(path)
    assert loaded.source == str(path) and loaded.random_layers == ()
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_file_declares_is_not_allocated():
    """Its ones would be 400 MB."""
    tracemalloc.start()
    wrong_uses.told(wrong_uses.WEIGHTS["a saved file that declares gigabytes"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
