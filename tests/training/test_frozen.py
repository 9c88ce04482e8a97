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
LOOKAHEAD = weight_averaging.lookahead(0.9, total_steps=10)
FROZEN = {"conv1_1/kernel", "conv1_1/bias", "bn2_1/scale", "fc8/bias"}


NUMBERS = np.random.default_rng(0)
BATCH = TrainingBatch(
    NUMBERS.integers(0, 256, (16, 8, 8, 3), np.uint8),
    NUMBERS.integers(0, 10, 16).astype(np.int32),
    np.arange(16, dtype=np.int32),
    np.int32(0),
)


def names(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path[-2:]) for path, _ in leaves}


MODEL = VGG("conv3-8 | conv3-8 |", 10, head="compact", batch_norm=True, conv="lax")
LAST = ("conv*", "bn*")


def recipe(patterns, average=LOOKAHEAD, **options):
    return step.Recipe(
        model=MODEL.clone(frozen=patterns),
        augment=Augment(),
        optimizer=SGD(**options).transformation(),
        schedule=Schedule(name="constant").rate(lr=0.1, epochs=1, steps_per_epoch=9),
        frozen=patterns,
        average=average,
    )


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def trained(patterns, steps=7, **options):
    """States before and after updates: momentum, decay and an average at work."""
    run = recipe(patterns, **options)
    state = step.init(run, seed=0, image_shape=(8, 8, 3))
    state = state.replace(
        batch_stats=jax.tree.map(lambda a: a + 0.3, state.batch_stats)
    )
    state = step.with_weights(run, state, state.params, state.batch_stats)
    first, update = state, jax.jit(lambda s: step.train_step(run, s, BATCH)[0])
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
    """With all kernels and biases but fc8's frozen, plain SGD moves fc8 as when all of
    the network trains; the scales are not frozen, so batch norm is as ever."""
    plain = {"momentum": 0.0, "weight_decay": 0.0, "steps": 1}
    _, alone = trained(("conv*", "bn*/bias"), **plain)
    _, together = trained((), **plain)
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(
            alone.params["fc8"][name], together.params["fc8"][name]
        )


def test_nothing_frozen_is_the_same_program():
    params = {"fc8": {"kernel": jnp.ones(2)}}
    assert split(params, ()) == (params, {})


def test_a_pattern_that_matches_nothing_is_told():
    with pytest.raises(ConfigError, match="model.frozen='conv9_9' .*conv1_1.*fc8"):
        step.init(recipe(("conv9_9",)), seed=0, image_shape=(8, 8, 3))


def test_nothing_left_to_train_is_told():
    with pytest.raises(ConfigError, match="leaves nothing to train: leave fc8 out"):
        step.init(recipe(("*",)), seed=0, image_shape=(8, 8, 3))


@pytest.mark.parametrize("average", [None, weight_averaging.exponential(0.7)])
def test_a_frozen_batch_norm_keeps_its_statistics(average):
    """Neither moved nor averaged, where an average of equal numbers rounds."""
    before, after = trained((*LAST[:1], "bn1_1"), average=average)
    for state in (after.batch_stats, after.variables["batch_stats"]):
        assert bits(state["bn1_1"]) == bits(before.batch_stats["bn1_1"])
        assert not set(bits(state["bn2_1"])) & set(bits(before.batch_stats["bn2_1"]))
    assert ("bn1_1" in after.ema, "bn2_1" in after.ema) == (False, bool(average))


def test_a_frozen_batch_norm_normalises_by_its_statistics():
    """In training it is what it is in evaluation: the activations of both are equal."""
    _, state = trained(LAST, steps=1)
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)

    def norms(model, train):
        _, sown = model.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            images,
            train=train,
            mutable=["intermediates", "batch_stats"],
        )
        found = sown["intermediates"]["activations"]
        return np.concatenate([found[n][0].ravel() for n in ("bn1_1", "bn2_1")])

    frozen, free = MODEL.clone(frozen=LAST), MODEL
    np.testing.assert_array_equal(norms(frozen, True), norms(frozen, False))
    assert np.abs(norms(free, True) - norms(free, False)).max() > 0.1
    half = MODEL.clone(frozen=("*/scale",))  # its bias trains: it is not frozen
    np.testing.assert_array_equal(norms(half, True), norms(free, True))


def test_no_gradient_is_computed_for_frozen_layers():
    """Convolutions in the jaxpr: 2 forward; those of the gradient go with the layers.

    Free: a gradient of each kernel and of the input of the second.
    """

    def convolutions(patterns):
        run = recipe(patterns)
        state = jax.eval_shape(lambda: step.init(run, seed=0, image_shape=(8, 8, 3)))
        update = lambda state: step.train_step(run, state, BATCH)[0]
        return str(jax.make_jaxpr(update)(state)).count("conv_general_dilated[")

    frozen = ((), ("conv1_1",), ("conv1_1", "bn1_1"), LAST)
    assert [convolutions(patterns) for patterns in frozen] == [5, 4, 3, 2]
