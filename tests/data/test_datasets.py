"""Data sets by name and their splits, against TFDS read directly."""

import io
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from vgg_jax.data import datasets, splits, tfds_reader
from vgg_jax.errors import ConfigError, RunError

SAMPLE = datasets.SAMPLE_DIR / "cifar10_sample"
same = np.testing.assert_array_equal


@pytest.fixture(scope="module")
def direct():
    """The sample's 4,000 training images in order of the file, and their ids."""
    builder = tfds.builder_from_directory(SAMPLE / "1.0.0")
    records = list(builder.as_data_source("train"))
    return np.stack([r["image"] for r in records]), np.array([r["id"] for r in records])


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the sample that stands in for it."""
    shutil.copytree(SAMPLE, tmp_path / "cifar10_sample")
    monkeypatch.setattr(datasets, "SAMPLE_DIR", tmp_path)
    return tmp_path / "cifar10_sample" / "1.0.0"


def test_sklearn_80_20_is_random_state_42(direct):
    """docs/facts.md section 1: validation is p[:20%], train p[20%:], by sorted ids."""
    images, ids = direct
    canonical, p = images[np.argsort(ids)], np.random.RandomState(42).permutation(4000)
    loaded = datasets.load("cifar10_sample")
    same(loaded.validation.images, canonical[p[:800]])
    same(loaded.train.images, canonical[p[800:]])
    assert len(loaded.test) == 1000


def test_the_split_at_50000_follows_the_ids_not_the_files():
    number = np.random.default_rng(7).permutation(50_000)  # of each place in the file
    ids = np.char.add(b"train_", np.char.zfill(number.astype("S5"), 5))
    spans = {"train": np.arange(50_000)}
    train, held_out = splits.sklearn_80_20(spans, {"train": ids}.get)
    p = np.random.RandomState(42).permutation(50_000)
    same(number[held_out["train"]], p[:10_000])
    same(number[train["train"]], p[10_000:])


def test_tfds_slices(direct):
    sliced = {"train": "train[:90%]", "validation": "train[90%:]"}
    loaded = datasets.load("cifar10_sample", **sliced)
    same(loaded.train.images, direct[0][:3600])
    same(loaded.validation.images, direct[0][3600:])
    whole = datasets.load("cifar10_sample", validation="none")
    assert whole.validation is None
    same(whole.train.images, direct[0])


_REFUSED = [
    ({"validation": "train[90%:]"}, "data.train and data.validation share 400"),
    ({"train": "tset"}, "data.train='tset'.* has: train, test;"),
    ({"validation": "tset"}, "data.validation='tset'.* has: train, test;"),
    ({"name": "cifar11"}, "data.name='cifar11'.*there: cifar10_sample"),
]


@pytest.mark.parametrize("fields, message", _REFUSED)
def test_a_mistake_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        datasets.load(**{"name": "cifar10_sample", "data_dir": SAMPLE.parent} | fields)


class _Grey(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    SHAPE, MODE, SIZES = (28, 28, 1), "L", [(28, 28)] * 5

    def _info(self):
        label = tfds.features.ClassLabel(names=["x", "y", "z"])
        features = {"image": tfds.features.Image(shape=self.SHAPE), "label": label}
        features = tfds.features.FeaturesDict(features)
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return dict(train=self._generate_examples(), test=self._generate_examples())

    def _generate_examples(self):
        for i, size in enumerate(self.SIZES):
            png, value = io.BytesIO(), 50 + i % 3  # the pixels tell the label
            colour = (value,) * self.SHAPE[2]
            PIL.Image.new(self.MODE, size, colour).save(png, "png")
            png.seek(0)
            yield i, {"image": png, "label": i % 3}


class _Varying(_Grey, skip_registration=True):
    SHAPE, MODE = (None, None, 3), "RGB"
    SIZES = [(40, 60), (60, 40), (9, 7), (32, 32), (33, 90)]


@pytest.mark.parametrize("kind, size", [(_Grey, 0), (_Varying, 32)])
def test_another_set_by_name(kind, size, tmp_path):
    builder = kind(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    where = {"data_dir": str(tmp_path), "validation": "none"}
    if size:
        with pytest.raises(ConfigError, match=r"varying size.*augment\.resize"):
            datasets.load(builder.name, **where)
    loaded = datasets.load(builder.name, size=size, **where)
    shape = (5, 32, 32, 3) if size else (5, 28, 28, 1)
    assert loaded.classes == ("x", "y", "z")
    for images, labels in (loaded.train, loaded.test):
        assert images.dtype == np.uint8 and sorted(labels) == [0, 0, 1, 1, 2]
        same(images, np.broadcast_to(50 + labels[:, None, None, None], shape))


def test_a_missing_file_is_named(copy):
    next(copy.rglob("*train.array_record*")).unlink()
    with pytest.raises(RunError, match=f"{copy}.*missing"):
        datasets.load("cifar10_sample")


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_file_is_named(damage, copy):
    (file,) = copy.glob("*train.array_record*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(RunError, match=f"{copy}.*corrupt or truncated"):
        datasets.load("cifar10_sample")


def test_a_changed_pixel_is_caught_by_its_sum(monkeypatch):
    images, labels, ids = tfds_reader.read(datasets.find("cifar10_sample"), "train")
    images[500, 16, 16, 1] ^= 1
    changed = tfds_reader.Records(images, labels, ids)
    monkeypatch.setattr(tfds_reader, "read", lambda *args, **kwargs: changed)
    with pytest.raises(RunError, match="SHA-256 of the cifar10_sample train pixels"):
        datasets.load("cifar10_sample")


def test_tfrecord_form_is_refused(copy):
    info = copy / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ConfigError, match="tfrecord files.*file_format=array_record"):
        datasets.load("cifar10_sample")


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "flip"])
def test_decoded_cache(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builder = datasets.find("cifar10_sample")
    first = tfds_reader.read(builder, "test")
    (file,) = tmp_path.rglob("*.npz")
    whole = file.read_bytes()
    half, rest = whole[:1_500_000], whole[1_500_001:]
    flip = half + bytes([whole[1_500_000] ^ 1]) + rest
    damaged = {"empty": b"", "garbage": b"no array", "half": half, "flip": flip}
    file.write_bytes(damaged[damage])
    again = tfds_reader.read(builder, "test")  # and rebuilds the file
    monkeypatch.setattr(tfds_reader, "_decode", lambda *args: pytest.fail("decoded"))
    for want, *got in zip(first, again, tfds_reader.read(builder, "test"), strict=True):
        same(got, [want, want])


def test_an_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    records = tfds_reader.read(datasets.find("cifar10_sample"), "test")
    assert np.bincount(records.labels).tolist() == [100] * 10
