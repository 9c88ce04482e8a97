"""Data sets by name and their splits, against TFDS read directly."""

import io
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from vgg_jax import memory
from vgg_jax.data import datasets, splits, stored, tfds_reader
from vgg_jax.errors import ConfigError, RunError

SAMPLE = stored.SAMPLE_DIR / "cifar10_sample"
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
    monkeypatch.setattr(stored, "SAMPLE_DIR", tmp_path)
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
    ({"name": "cifar11:1.0.0"}, "data.name='cifar11:1.0.0' is not in"),
    *[
        ({"name": name}, "is no name of a TFDS data set.*cifar10:3.0.2")
        for name in ("../../etc", "cifar10/..", "a b", "", "Cifar10", "cifar10:new")
    ],
    ({"data_dir": "/misspelt/tfds"}, "data.data_dir=/misspelt/tfds does not exist"),
    ({"name": "n" * 300}, "is not in"),
]


@pytest.mark.parametrize("fields, message", _REFUSED)
def test_a_mistake_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        datasets.load(**{"name": "cifar10_sample", "data_dir": SAMPLE.parent} | fields)


@pytest.mark.parametrize("name", ["cifar10", "cifar10_sample", "photos"])
def test_a_misspelt_directory_is_not_made(name, tmp_path):
    misspelt = tmp_path / "misspelt"
    with pytest.raises(ConfigError, match="misspelt does not exist: make it"):
        stored.find(name, data_dir=str(misspelt))
    assert not misspelt.exists()


def test_a_version_by_name(tmp_path, monkeypatch):
    for version in ("1.0.0", "1.1.0", "1.10.0"):
        shutil.copytree(SAMPLE / "1.0.0", tmp_path / "some" / "config" / version)
    names = {"some/config": "1.10.0", "some/config:1.1.0": "1.1.0"}
    for name, version in names.items():
        found = stored.find(name, data_dir=str(tmp_path))
        assert found.data_path == tmp_path / "some" / "config" / version
    assert stored.find("cifar10_sample:1.0.0").name == "cifar10_sample"
    with pytest.raises(RunError, match="cifar10_sample:2.0.0 is not in"):
        stored.find("cifar10_sample:2.0.0")


def test_no_home_directory_is_one_line(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "TFDS_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stored.constants, "DATA_DIR", "~/tensorflow_datasets")
    with pytest.raises(ConfigError, match="no home directory.*TFDS_DATA_DIR"):
        stored.directory()
    with pytest.raises(ConfigError, match="no home directory.*XDG_CACHE_HOME"):
        tfds_reader.read(stored.find("cifar10_sample"), "test")


class Grey(tfds.core.GeneratorBasedBuilder, skip_registration=True):
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


class Varying(Grey, skip_registration=True):
    SHAPE, MODE = (None, None, 3), "RGB"
    SIZES = [(40, 60), (60, 40), (9, 7), (32, 32), (33, 90)]


@pytest.mark.parametrize("kind, size", [(Grey, 0), (Varying, 32)])
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


@pytest.mark.parametrize(
    "name, message",
    [
        ("big\ndog", r"label\.labels\.txt has 11 names of 10 classes: .*line break"),
        ("dog\x1b[2J", r"class 'dog\\x1b\[2J' .*rename it"),
    ],
)
def test_a_class_name_of_two_lines_is_refused(name, message, copy):
    (file,) = copy.rglob("label.labels.txt")
    file.write_text(file.read_text().replace("dog", name))
    with pytest.raises(ConfigError, match=message):
        datasets.load("cifar10_sample")


class Photos(Grey, skip_registration=True):
    """Pictures with detail, which share a size or not by what is declared."""

    SHAPE, SIZES = (40, 60, 3), [(60, 40)] * 5

    def _generate_examples(self):
        numbers = np.random.default_rng(0)
        for i, (width, height) in enumerate(self.SIZES):
            png = io.BytesIO()
            pixels = numbers.integers(0, 256, (height, width, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(png, "png")
            png.seek(0)
            yield i, {"image": png, "label": i % 3}


class Undeclared(Photos, skip_registration=True):
    SHAPE = (None, None, 3)


class Squares(Photos, skip_registration=True):
    SHAPE, SIZES = (40, 40, 3), [(40, 40)] * 5


class Sixteen(Grey, skip_registration=True):
    """16 bits in the files; TFDS declares 8."""

    def _generate_examples(self):
        for i, size in enumerate(self.SIZES):
            png = io.BytesIO()
            pixels = np.full(size, 257 * (50 + i % 3), np.uint16)
            PIL.Image.fromarray(pixels).save(png, "png")
            png.seek(0)
            yield i, {"image": png, "label": i % 3}


def test_16_bits_in_a_set_of_8_are_scaled(tmp_path):
    images, labels = prepared(Sixteen, tmp_path)()
    same(images[:, 0, 0, 0], 50 + labels)


def prepared(kind, root):
    builder = kind(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    fields = {"data_dir": str(root), "validation": "none"}
    return lambda **more: datasets.load(builder.name, **fields | more).train


@pytest.mark.parametrize("size", [20, 50, 64])
def test_one_preprocessing_for_one_size_and_for_many(size, tmp_path):
    """Pillow's antialiased bilinear scaling of the smaller side, and the centre."""
    photos = prepared(Photos, tmp_path)(size=size)
    undeclared = prepared(Undeclared, tmp_path)(size=size)
    assert photos.image_shape == undeclared.image_shape == (size, size, 3)
    same(photos.images, undeclared.images)
    streamed = prepared(Photos, tmp_path)(size=size, stream=True)
    same(photos.images, streamed.take(np.arange(5))[0])
    whole = prepared(Photos, tmp_path)().images[0]  # 40 x 60
    wide = PIL.Image.fromarray(whole).resize((size * 3 // 2, size), 2)  # BILINEAR
    left = (size * 3 // 2 - size) // 2
    same(photos.images[0], np.asarray(wide)[:, left : left + size])


def test_small_squares_are_left_for_the_device_to_enlarge(tmp_path):
    squares = prepared(Squares, tmp_path)
    shapes = {size: squares(size=size).image_shape for size in (0, 20, 40, 64)}
    assert shapes == {0: (40, 40, 3), 20: (20, 20, 3), 40: (40, 40, 3), 64: (40, 40, 3)}
    same(squares(size=64).images, squares().images)
    sample = datasets.load("cifar10_sample", size=224).train
    same(sample.images, datasets.load("cifar10_sample").train.images)
    assert datasets.load("cifar10_sample", size=16).train.image_shape == (16, 16, 3)


# 4,000 and 1,000 images of 32 x 32 x 3 are read, and copied into the splits.
NEEDED = 10_000 * 3072


def test_what_exceeds_memory_is_refused_before_it_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available", lambda: NEEDED)
    datasets.load("cifar10_sample")
    monkeypatch.setattr(memory, "available", lambda: NEEDED - 1)
    monkeypatch.setattr(tfds_reader, "read", lambda *a, **k: pytest.fail("read"))
    for validation in ("sklearn_80_20", "none"):
        with pytest.raises(
            ConfigError, match=r"32x32.*0.0 GB.*resize to fewer pixels.*stream=True"
        ):
            datasets.load("cifar10_sample", validation=validation)
    datasets.load("cifar10_sample", stream=True)
    photos = prepared(Photos, tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 2**38)
    for stream in (False, True):
        with pytest.raises(ConfigError, match="100000x100000 pixels .*GB of") as told:
            photos(size=100_000, stream=stream)
        assert ("data.stream=True" in str(told.value)) != stream
    monkeypatch.setattr(memory, "available", lambda: None)  # not Linux: not known
    datasets.load("cifar10_sample", stream=True)


def test_short_memory_is_not_told_as_damage(monkeypatch, tmp_path):
    def decode(*args):
        raise MemoryError

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tfds_reader, "_decode", decode)
    with pytest.raises(RunError, match="not enough memory.*augment.resize") as error:
        datasets.load("cifar10_sample")
    assert "remove" not in str(error.value) and "corrupt" not in str(error.value)


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
    images, labels, ids = tfds_reader.read(stored.find("cifar10_sample"), "train")
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
    builder = stored.find("cifar10_sample")
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


def test_a_size_that_changes_nothing_is_not_decoded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builder = stored.find("cifar10_sample")
    first = tfds_reader.read(builder, "test")
    monkeypatch.setattr(tfds_reader, "_decode", lambda *args: pytest.fail("decoded"))
    same(tfds_reader.read(builder, "test", size=224).images, first.images)
    with pytest.raises(pytest.fail.Exception, match="decoded"):
        tfds_reader.read(builder, "test", size=16)


def test_an_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    records = tfds_reader.read(stored.find("cifar10_sample"), "test")
    assert np.bincount(records.labels).tolist() == [100] * 10
