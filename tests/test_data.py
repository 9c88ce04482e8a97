"""Data sets by name and their splits, against TFDS read directly."""

import io
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from vgg_jax import data
from vgg_jax.errors import ConfigError, RunError


@pytest.fixture(scope="module")
def canonical():
    """The sample's 4,000 training images in order of their ids."""
    builder = tfds.builder_from_directory(data.SAMPLE_DIR / "cifar10_sample" / "1.0.0")
    skip = {"image": tfds.decode.SkipDecoding()}
    records = list(builder.as_data_source("train", decoders=skip))
    records.sort(key=lambda record: record["id"])
    pictures = [PIL.Image.open(io.BytesIO(record["image"])) for record in records]
    return np.stack([np.asarray(picture) for picture in pictures])


def test_the_blog_split_is_random_state_42(canonical):
    """facts.md section 1: validation is p[:20%], train p[20%:]."""
    loaded = data.load("cifar10_sample")
    p = np.random.RandomState(42).permutation(4000)
    np.testing.assert_array_equal(loaded.validation.images, canonical[p[:800]])
    np.testing.assert_array_equal(loaded.train.images, canonical[p[800:]])
    assert len(loaded.test) == 1000


def test_tfds_slices():
    loaded = data.load(
        "cifar10_sample", train="train[:90%]", validation="train[90%:]", test="test"
    )
    assert (len(loaded.train), len(loaded.validation)) == (3600, 400)
    whole = data.load("cifar10_sample", validation="none")
    assert whole.validation is None
    np.testing.assert_array_equal(whole.train.images[:3600], loaded.train.images)


def test_overlap_is_refused():
    with pytest.raises(ConfigError, match="data.train and data.validation share 400"):
        data.load("cifar10_sample", validation="train[90%:]")


def test_an_unknown_set_lists_the_known_ones(tmp_path):
    shutil.copytree(data.SAMPLE_DIR / "cifar10_sample", tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"cifar11.*there: mine"):
        data.load("cifar11", data_dir=str(tmp_path))


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_file_is_named(damage, tmp_path, monkeypatch):
    shutil.copytree(data.SAMPLE_DIR / "cifar10_sample", tmp_path / "cifar10_sample")
    (file,) = tmp_path.rglob("*train.array_record*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    monkeypatch.setattr(data, "SAMPLE_DIR", tmp_path)
    with pytest.raises(RunError, match="cifar10_sample"):
        data.load("cifar10_sample")
