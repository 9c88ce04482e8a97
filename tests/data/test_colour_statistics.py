"""Mean and standard deviation of the channels, against NumPy in float64."""

import shutil

import numpy as np
import pytest

from vgg_jax.data import colour_statistics, datasets, stored
from vgg_jax.data.in_memory import Split
from vgg_jax.data.streaming import Streamed


def same(got, want):
    for got_array, want_array in zip(got, want, strict=True):
        np.testing.assert_array_equal(got_array, want_array)


@pytest.mark.parametrize("most", [10_000, 777])
def test_they_are_those_of_the_images(most, monkeypatch):
    """In memory and streamed; of images evenly spaced where there are more."""
    monkeypatch.setattr(colour_statistics, "IMAGES", most)
    in_memory, streamed = (
        datasets.load("cifar10_sample", stream=stream).train for stream in (0, 1)
    )
    chosen = in_memory.images[np.arange(most) * 3200 // most if most < 3200 else ...]
    pixels = chosen.reshape(-1, 3) / 255.0
    moments = colour_statistics.of_split(in_memory)
    got = colour_statistics.statistics(moments)
    np.testing.assert_allclose(got, (pixels.mean(0), pixels.std(0)), rtol=1e-10)
    same(colour_statistics.of_split(streamed), moments)
    got = np.array(colour_statistics.components(moments))
    covariance = np.cov(255 * pixels.T, bias=True)
    np.testing.assert_allclose(got.T @ got, covariance, rtol=1e-9)
    lengths = np.linalg.norm(got, axis=1)
    assert list(lengths) == sorted(lengths, reverse=True)
    inner = got @ got.T
    np.testing.assert_allclose(inner, np.diag(lengths**2), atol=1e-6 * inner.max())


def test_they_do_not_depend_on_the_pieces(monkeypatch):
    split = datasets.load("cifar10_sample").test
    whole = colour_statistics.of_split(split)
    monkeypatch.setattr(colour_statistics, "_CHUNK_BYTES", 7 * 3072)
    same(colour_statistics.of_split(split), whole)


def test_those_of_a_streamed_set_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load = lambda **more: datasets.load("cifar10_sample", stream=True, **more)
    first = colour_statistics.of_training(load())
    monkeypatch.setattr(Streamed, "batches", lambda *a: pytest.fail("decoded again"))
    same(colour_statistics.of_training(load()), first)
    with pytest.raises(pytest.fail.Exception):
        colour_statistics.of_training(load(train="train[:50%]"))


def test_those_of_other_files_are_not_taken(monkeypatch, tmp_path):
    """Of a set whose pictures have the same names: CIFAR-10 and CIFAR-100."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copy = tmp_path / "copy"
    shutil.copytree(stored.SAMPLE_DIR / "cifar10_sample", copy / "cifar10_sample")
    colour_statistics.of_training(datasets.load("cifar10_sample", stream=True))
    monkeypatch.setattr(Streamed, "batches", lambda *a: pytest.fail("decoded again"))
    monkeypatch.setattr(stored, "SAMPLE_DIR", copy)
    with pytest.raises(pytest.fail.Exception):
        colour_statistics.of_training(datasets.load("cifar10_sample", stream=True))


def test_a_channel_without_variance_divides_by_one_grey_level():
    split = Split(np.full((2, 4, 4, 1), 51, np.uint8), np.zeros(2, np.int32))
    moments = colour_statistics.of_split(split)
    assert colour_statistics.statistics(moments) == ((0.2,), (1 / 255,))
