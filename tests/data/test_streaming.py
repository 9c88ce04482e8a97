"""Splits read from disk as needed, against the same splits in memory."""

import multiprocessing
import os
import signal

import numpy as np
import PIL.Image
import pytest

from vgg_jax.data import batches, datasets


@pytest.fixture(scope="module")
def both():
    load = datasets.load
    return load("cifar10_sample"), load("cifar10_sample", stream=True)


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_evaluation_batches_are_the_same(both, role):
    in_memory, streamed = (getattr(dataset, role) for dataset in both)
    assert len(streamed) == len(in_memory)
    assert streamed.image_shape == in_memory.image_shape == (32, 32, 3)
    pairs = zip(
        batches.evaluation(in_memory, batch_size=300),
        batches.evaluation(streamed, batch_size=300),
        strict=True,
    )
    for want, got in pairs:
        for got_array, want_array in zip(got, want, strict=True):
            np.testing.assert_array_equal(got_array, want_array)
            assert got_array.dtype == want_array.dtype


@pytest.mark.parametrize("start", [0, 7])
def test_training_batches_are_the_same(both, start):
    how = {"seed": 3, "batch_size": 128, "epoch": 2, "start": start}
    in_memory, streamed = (
        list(batches.training(dataset.train, **how, remainder="keep"))
        for dataset in both
    )
    assert len(in_memory) == 25 - start
    for want, got in zip(in_memory, streamed, strict=True):
        for got_array, want_array in zip(got, want, strict=True):
            np.testing.assert_array_equal(got_array, want_array)


def test_examples_of_two_splits_keep_their_order():
    """`train+test` in one split: record numbers are those of each file."""
    parts = {"train": "train[:30]+test[:20]", "validation": "none", "test": "test[50:]"}
    in_memory = datasets.load("cifar10_sample", **parts).train
    streamed = datasets.load("cifar10_sample", **parts, stream=True).train
    index = np.random.default_rng(0).permutation(50)
    images, labels = streamed.take(index)
    np.testing.assert_array_equal(images, in_memory.images[index])
    np.testing.assert_array_equal(labels, in_memory.labels[index])


@pytest.mark.slow
def test_processes_that_decode_leave_ctrl_c_to_the_run():
    """A terminal sends it to all of them."""
    split = datasets.load("cifar10_sample", stream=True, workers=1).train
    groups = np.arange(320).reshape(40, 8)
    found = split.batches(groups)
    first = next(found)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(worker.pid, number)
    seen = [first, *found]
    np.testing.assert_array_equal(
        np.concatenate([labels for _, labels in seen]), split.take(groups.ravel())[1]
    )


def test_scales_of_images_that_have_the_size_already():
    """Evaluation sees the centre at the middle scale; Pillow cuts the same."""
    how = {"stream": True, "size": 32, "scales": (36, 72)}
    seen, _ = datasets.load("cifar10_sample", **how).test.take(np.arange(3))
    whole, _ = datasets.load("cifar10_sample", stream=True).test.take(np.arange(3))
    for image, stored in zip(seen, whole, strict=True):
        scaled = PIL.Image.fromarray(stored).resize((54, 54), PIL.Image.BILINEAR)
        wanted = np.asarray(scaled.crop((11, 11, 43, 43)), np.float32)
        np.testing.assert_allclose(image.astype(np.float32), wanted, atol=1)
