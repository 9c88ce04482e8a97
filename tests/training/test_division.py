"""Batches that cannot be divided are refused, with the remedy."""

from types import SimpleNamespace
from typing import Any

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


def over(devices) -> Any:
    return SimpleNamespace(size=devices)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"shards": 6}, "shards=6 is no power of two"),
        ({"shards": 256}, "batch_size=128 cannot be divided among 256 shards: use 256"),
        ({"shards": 2, "remainder": "keep"}, "2 shards may not divide: set remainder="),
    ],
)
def test_shards_that_no_machine_can_compute(changes, text):
    with pytest.raises(ConfigError, match=text):
        config(**changes)


@pytest.mark.parametrize(
    "devices, changes, text",
    [
        (6, {"shards": 8}, "among 6 devices: set mesh.data=4"),
        (16, {"shards": 8}, "among 16 devices: set mesh.data=8"),
        (3, {}, "batch_size=128 cannot be divided among 3 devices: use 129, or mesh"),
        (2, {"remainder": "keep"}, "2 devices may not divide: .* or mesh.data=1"),
    ],
)
def test_what_these_devices_cannot_divide(devices, changes, text):
    made = config(**changes)
    with pytest.raises(ConfigError, match=text):
        division.check(made, over(devices))


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
    division.check(config(**changes), over(devices))
    assert division.images_at_once(config(**changes), over(devices)) == at_once


@pytest.mark.parametrize("devices, shards", [(1, 16), (16, 1)])
def test_too_few_images_for_onednn(devices, shards):
    """Its weight gradients of 8 images are wrong."""
    plain = {"model.conv": "lax", "model.dtype": "bfloat16"}
    with pytest.raises(ConfigError, match="8 at once"):
        division.check(config(shards=shards, **plain), over(devices))


def test_more_devices_than_there_are():
    with pytest.raises(ConfigError, match=r"mesh.data=1000, but JAX sees \d+ device"):
        mesh.over(1000)
