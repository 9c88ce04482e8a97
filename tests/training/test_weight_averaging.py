"""Averages of the weights, by hand."""

import jax.numpy as jnp
import pytest

from configs import default
from vgg_jax.errors import ConfigError
from vgg_jax.training import recipe, weight_averaging
from vgg_jax.training.config import resolve


def test_exponential():
    params, mean = weight_averaging.exponential(0.75)(
        jnp.asarray(8.0), jnp.asarray(4.0), 0
    )
    assert (params, mean) == (8.0, 0.75 * 4 + 0.25 * 8)


def test_lookahead_acts_every_fifth_update():
    update = weight_averaging.lookahead(0.5, total_steps=100)
    params, mean = jnp.asarray(8.0), jnp.asarray(4.0)
    for step in (0, 1, 2, 3, 5, 98):
        assert update(params, mean, jnp.asarray(step)) == (8.0, 4.0)
    stays = 0.5**5 * 0.99**3
    new, moved = update(params, mean, jnp.asarray(99))
    assert float(new) == float(moved) == pytest.approx(stays * 4 + (1 - stays) * 8)
    new, moved = update(params, mean, jnp.asarray(4))  # at the start nearly nothing
    assert float(new) == float(moved) == pytest.approx(8.0, abs=1e-4)


def test_two_averages_are_refused():
    config = default.get_config()
    config.ema_decay, config.lookahead = 0.9, 0.9
    with pytest.raises(ConfigError, match="set one of them to 0"):
        resolve(config)


def test_the_config_chooses():
    config = default.get_config()
    assert recipe._average(resolve(config), 10) is None
    config.lookahead = 0.9
    assert recipe._average(resolve(config), 10).__qualname__.startswith("lookahead")
