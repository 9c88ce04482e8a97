"""Mean and standard deviation of the channels, against NumPy in float64."""

import numpy as np
import pytest

from vgg_jax.data import colour_statistics, datasets
from vgg_jax.data.in_memory import Split


@pytest.mark.parametrize("most", [10_000, 777])
def test_they_are_those_of_the_images(most, monkeypatch):
    """In memory and streamed; of images evenly spaced where there are more."""
    monkeypatch.setattr(colour_statistics, "IMAGES", most)
    in_memory, streamed = (
        datasets.load("cifar10_sample", stream=stream).train for stream in (0, 1)
    )
    chosen = in_memory.images[np.arange(most) * 3200 // most if most < 3200 else ...]
    pixels = chosen.reshape(-1, 3) / 255.0
    got = colour_statistics.of_split(in_memory)
    np.testing.assert_allclose(got, (pixels.mean(0), pixels.std(0)), rtol=1e-10)
    assert colour_statistics.of_split(streamed) == got


def test_they_do_not_depend_on_the_pieces(monkeypatch):
    split = datasets.load("cifar10_sample").test
    whole = colour_statistics.of_split(split)
    monkeypatch.setattr(colour_statistics, "_CHUNK_BYTES", 7 * 3072)
    assert colour_statistics.of_split(split) == whole


def test_a_channel_without_variance_divides_by_one_grey_level():
    split = Split(np.full((2, 4, 4, 1), 51, np.uint8), np.zeros(2, np.int32))
    assert colour_statistics.of_split(split) == ((0.2,), (1 / 255,))
