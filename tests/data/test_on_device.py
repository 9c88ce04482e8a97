"""Images on an accelerator, with the CPU in its place."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from vgg_jax.data import on_device
from vgg_jax.data.in_memory import Split
from vgg_jax.mesh import over

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
SPLIT = Split(IMAGES, np.arange(10, dtype=np.int32))


@pytest.mark.parametrize(
    "platform, stats, there",
    [
        ("gpu", {"bytes_limit": 20 * IMAGES.nbytes}, True),
        ("gpu", {"bytes_limit": 20 * IMAGES.nbytes - 20}, False),
        ("tpu", {}, False),
        ("tpu", None, False),
        ("cpu", {"bytes_limit": 10**12}, False),
    ],
)
def test_where_they_go(platform, stats, there, monkeypatch):
    device = SimpleNamespace(platform=platform, memory_stats=lambda: stats)
    mesh = SimpleNamespace(local_devices=[device])
    assert on_device.fits(SPLIT, mesh) == there  # pyright: ignore


def test_the_batches_are_those_of_the_host():
    there = on_device.OnDevice(jax.device_put(IMAGES), SPLIT.labels, over(1))
    indices = np.array([[3, 1], [9, 0]], np.int32)
    assert len(there) == 10 and there.image_shape == SPLIT.image_shape
    pairs = zip(there.batches(indices), SPLIT.batches(indices), strict=True)
    for (images, labels), (wanted, wanted_labels) in pairs:
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, wanted)
        np.testing.assert_array_equal(labels, wanted_labels)
