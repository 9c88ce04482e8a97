"""Frozen parameters: nothing about them changes, whatever the optimiser does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.data.batches import TrainingBatch
from vgg_jax.errors import ConfigError
from vgg_jax.nn.patterns import split
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import step, weight_averaging
from vgg_jax.training.augment import Augment
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

PATTERNS = ("conv1_*", "bn2_1/scale", "fc8/bias")
FROZEN = {"conv1_1/kernel", "conv1_1/bias", "bn2_1/scale", "fc8/bias"}


def names(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path[-2:]) for path, _ in leaves}


def recipe(patterns, **options):
    return step.Recipe(
        model=VGG("conv3-8 | conv3-8 |", 10, head="compact", batch_norm=True),
        augment=Augment(),
        optimizer=SGD(**options).transformation(),
        schedule=Schedule(name="constant").rate(lr=0.1, epochs=1, steps_per_epoch=9),
        frozen=patterns,
        average=weight_averaging.lookahead(0.9, total_steps=10),
    )


def trained(patterns, steps=7, **options):
    """States before and after updates: momentum, decay and an average at work."""
    run = recipe(patterns, **options)
    state = step.init(run, seed=0, image_shape=(8, 8, 3))
    numbers = np.random.default_rng(0)
    batch = TrainingBatch(
        numbers.integers(0, 256, (16, 8, 8, 3), np.uint8),
        numbers.integers(0, 10, 16).astype(np.int32),
        np.arange(16, dtype=np.int32),
        np.int32(0),
    )
    first, update = state, jax.jit(lambda s: step.train_step(run, s, batch)[0])
    for _ in range(steps):
        state = update(state)
    return first, state


@pytest.mark.parametrize(
    "options", [{"decay": "l2"}, {"decay": "constant"}, {"muon": 0.5}]
)
def test_frozen_parameters_are_bit_identical_and_the_others_move(options):
    before, after = trained(PATTERNS, weight_decay=0.1, **options)
    old, fixed = split(before.params, PATTERNS)
    new, still = split(after.params, PATTERNS)
    assert names(fixed) == FROZEN and len(names(old) | FROZEN) == 10
    for a, b in zip(jax.tree.leaves(fixed), jax.tree.leaves(still), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        assert (np.asarray(a) != np.asarray(b)).any()


def test_there_is_no_momentum_and_no_average_of_them():
    state, _ = trained(PATTERNS, steps=0)
    rest = names(state.params) - FROZEN
    assert names(state.opt_state) == names(state.ema) == rest and len(rest) == 6
    assert names(state.variables["params"]) == names(state.params)


def test_the_others_train_as_if_the_frozen_ones_were_constants():
    """With everything but fc8 frozen, plain SGD moves fc8 as when all of it trains."""
    plain = {"momentum": 0.0, "weight_decay": 0.0, "steps": 1}
    _, alone = trained(("conv*", "bn*"), **plain)
    _, together = trained((), **plain)
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(
            alone.params["fc8"][name], together.params["fc8"][name]
        )


def test_nothing_frozen_is_the_same_program():
    params = {"fc8": {"kernel": jnp.ones(2)}}
    assert split(params, ()) == (params, {})


def test_a_pattern_that_matches_nothing_is_told():
    with pytest.raises(ConfigError, match="frozen='conv9_9' .*conv1_1.*fc8"):
        step.init(recipe(("conv9_9",)), seed=0, image_shape=(8, 8, 3))
