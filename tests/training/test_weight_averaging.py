"""Averages of the weights, by hand, and what a run evaluates with."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.errors import ConfigError
from vgg_jax.nn.patterns import merge
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import recipe, step, weight_averaging
from vgg_jax.training.augment import Augment
from vgg_jax.training.config import resolve
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD


def test_exponential():
    average = weight_averaging.exponential(0.75)
    params, mean = average.update(jnp.asarray(8.0), jnp.asarray(4.0), jnp.asarray(0))
    assert (params, mean) == (8.0, 0.75 * 4 + 0.25 * 8)


def test_lookahead_acts_every_fifth_update():
    update = weight_averaging.lookahead(0.5, total_steps=100).update
    params, mean = jnp.asarray(8.0), jnp.asarray(4.0)
    for number in (0, 1, 2, 3, 5, 98):
        assert update(params, mean, jnp.asarray(number)) == (8.0, 4.0)
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
    average = recipe._average(resolve(config), 10)
    assert average.update.__qualname__.startswith("lookahead")


def updates(average, count, frozen=()):
    """The states before and after each of some updates; `conv1_1` is set to ones.

    As `whitening.set_first` does, after the average was begun with random weights.
    """
    run = step.Recipe(
        model=VGG(
            "conv3-4 | conv3-4 |", 4, head="compact", batch_norm=True, conv="lax"
        ),
        augment=Augment(),
        optimizer=SGD(momentum=0.0).transformation(),
        schedule=Schedule(name="constant").rate(lr=0.1, epochs=1, steps_per_epoch=9),
        frozen=frozen,
        average=average,
    )
    numbers = np.random.default_rng(0)
    batch = TrainingBatch(
        numbers.integers(0, 256, (8, 8, 8, 3), np.uint8),
        numbers.integers(0, 4, 8).astype(np.int32),
        np.arange(8, dtype=np.int32),
        np.int32(0),
    )
    state = jax.jit(partial(step.init, run, seed=0, image_shape=(8, 8, 3)))()
    ones = {"conv1_1": {"kernel": jnp.ones((3, 3, 3, 4))}}
    state = state.replace(params=merge(state.params, ones))
    update, states = jax.jit(partial(step.train_step, run)), [state]
    for _ in range(count):
        states.append(update(states[-1], batch)[0])
    return states


def test_a_whitening_layer_is_evaluated_as_it_was_computed():
    average = weight_averaging.exponential(0.999)
    before, *_, after = updates(average, 2, frozen=("conv1_1/kernel",))
    for state in (before, after):
        assert (state.variables["params"]["conv1_1"]["kernel"] == 1).all()
    assert sorted(after.ema["conv1_1"]) == ["bias"]


def test_the_exponential_average_is_one_of_the_statistics_too():
    """Recomputed in NumPy from the states, for parameters and statistics alike."""
    decay = 0.75
    states = updates(weight_averaging.exponential(decay), 3)
    for kind in ("params", "batch_stats"):
        first, *rest = (jax.device_get(getattr(state, kind)) for state in states)
        want = jax.device_get(states[0].variables[kind])  # the average at the start
        for new in rest:
            want = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, want, new)
        got = states[-1].variables[kind]
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want
        )
        assert jax.tree.structure(got) == jax.tree.structure(first)
    evaluated, live = states[-1].variables["batch_stats"], states[-1].batch_stats
    assert (evaluated["bn2_1"]["mean"] != live["bn2_1"]["mean"]).all()


def test_the_lookahead_leaves_statistics_alone():
    *_, last = updates(weight_averaging.lookahead(0.9, total_steps=10), 5)
    assert sorted(last.ema["bn1_1"]) == ["bias", "scale"]
    jax.tree.map(
        np.testing.assert_array_equal, last.variables["batch_stats"], last.batch_stats
    )
