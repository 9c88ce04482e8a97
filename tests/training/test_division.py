"""Batches that cannot be divided among devices are refused, with the remedy."""

from types import SimpleNamespace

import pytest

from configs import default
from vgg_jax import mesh
from vgg_jax.errors import ConfigError
from vgg_jax.training import division
from vgg_jax.training.config import resolve


def config(**changes):
    settings = default.get_config()
    settings.update_from_flattened_dict({"batch_size": 128, **changes})
    return resolve(settings)


@pytest.mark.parametrize(
    "devices, changes, text",
    [
        (1, {"shards": 6}, "shards=6 is no power of two"),
        (6, {"shards": 8}, "among 6 devices: set mesh.data=4"),
        (3, {}, "batch_size=128 cannot be divided among 3 devices: use 129, or mesh"),
        (
            1,
            {"shards": 256},
            "batch_size=128 cannot be divided among 256 shards: use",
        ),
        (2, {"remainder": "keep"}, "2 devices cannot divide: set remainder=drop"),
        (1, {"remainder": "keep", "shards": 2}, "2 shards cannot divide"),
    ],
)
def test_what_is_refused(devices, changes, text):
    with pytest.raises(ConfigError, match=text):
        division.check(config(**changes), SimpleNamespace(size=devices))


@pytest.mark.parametrize(
    "devices, changes, at_once",
    [
        (1, {}, 128),
        (1, {"remainder": "keep"}, 128),
        (4, {}, 32),
        (1, {"shards": 16}, 8),
        (4, {"shards": 16}, 8),
    ],
)
def test_images_at_once(devices, changes, at_once):
    there = SimpleNamespace(size=devices)
    division.check(config(**changes), there)
    assert division.images_at_once(config(**changes), there) == at_once


def test_more_devices_than_there_are():
    with pytest.raises(ConfigError, match=r"mesh.data=1000, but JAX sees \d+ device"):
        mesh.over(1000)
