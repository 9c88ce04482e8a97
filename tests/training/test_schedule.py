"""Schedules and the plateau against their definitions and Keras' documentation.

FACTS: docs/facts.md section 3, where each rule is quoted from its source.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.training.schedule import Plateau, Schedule


@pytest.mark.parametrize(
    "call, known",
    [
        (
            lambda: Schedule(name="F"),
            ["plateau", "constant", "step", "cosine", "triangular"],
        ),
        (lambda: Schedule(monitor="F"), ["val_loss", "train_top5"]),
        (lambda: plateau(mode="F"), ["min", "max"]),
    ],
)
def test_unknown_names(call, known):
    with pytest.raises(ConfigError, match="'F'") as error:
        call()
    assert all(name in str(error.value).split(":")[-1] for name in known)


# Ten epochs of four steps at 0.8: the rates by hand, at step numbers.
@pytest.mark.parametrize(
    "name, options, points",
    [
        ("constant", {}, {0: 0.8, 39: 0.8, 100: 0.8}),
        ("plateau", {}, {0: 0.8, 39: 0.8, 100: 0.8}),
        (
            "step",
            {"boundaries": (5, 7.5), "factor": 0.1},
            {0: 0.8, 19: 0.8, 20: 0.08, 29: 0.08, 30: 0.008, 39: 0.008},
        ),
        ("cosine", {}, {0: 0.8, 10: 0.4 + 0.4 * math.sqrt(0.5), 20: 0.4, 40: 0.0}),
        ("cosine", {"final_scale": 0.25}, {0: 0.8, 20: 0.5, 40: 0.2}),
        ("triangular", {}, {0: 0.8, 10: 0.6, 20: 0.4, 40: 0.0}),
        ("triangular", {"final_scale": 0.25}, {0: 0.8, 20: 0.5, 40: 0.2}),
        # Two epochs of warm-up, within the ten.
        ("constant", {"warmup": 0.2}, {0: 0.0, 4: 0.4, 8: 0.8, 39: 0.8}),
        ("cosine", {"warmup": 0.2}, {0: 0.0, 2: 0.2, 8: 0.8, 24: 0.4, 40: 0.0}),
        ("triangular", {"warmup": 0.2}, {6: 0.6, 8: 0.8, 24: 0.4, 40: 0.0}),
        (
            "step",
            {"warmup": 0.2, "boundaries": (5,), "factor": 0.5},
            {4: 0.4, 8: 0.8, 19: 0.8, 20: 0.4, 39: 0.4},
        ),
    ],
)
def test_schedules(name, options, points):
    rate = Schedule(name=name, **options).rate(lr=0.8, epochs=10, steps_per_epoch=4)
    got = [float(rate(step)) for step in points]
    np.testing.assert_allclose(got, list(points.values()), rtol=1e-5, atol=1e-7)


def keras_rates(history, *, lr, min_lr, mode, factor, patience, min_delta, cooldown):
    """ReduceLROnPlateau, from its documentation and FACTS: the rate after each epoch.

    "min_delta: threshold for measuring the new optimum"; "cooldown: number of epochs to
    wait before resuming normal operation after the learning rate has been reduced".
    """
    best = math.inf if mode == "min" else -math.inf
    wait = cooldown_counter = 0
    rates = []
    for value in history:
        if cooldown_counter > 0:
            cooldown_counter -= 1
            wait = 0
        if mode == "min":
            improved = value < best - min_delta
        else:
            improved = value > best + min_delta
        if improved:
            best, wait = value, 0
        elif cooldown_counter == 0:
            wait += 1
            if wait >= patience and lr > min_lr:
                lr = max(lr * factor, min_lr)
                cooldown_counter, wait = cooldown, 0
        rates.append(lr)
    return rates


def plateau(**options):
    defaults = dict(
        mode="min", factor=0.1, patience=1, min_delta=1e-4, cooldown=0, min_scale=1e-3
    )
    return Plateau(**defaults | options)


def histories(numbers, epochs=24):
    """Losses, [kind, epoch]: each kind finds its own way to be wrong."""
    noise = numbers.normal(size=(7, epochs))
    steps = np.arange(epochs)
    first_nan = np.where(steps < 2, np.nan, 1 + 0.01 * noise[0])
    return np.array(
        [
            np.full(epochs, 0.7),
            2 - 3e-5 * steps,  # improves, each time by less than 1e-4
            2 * 0.8**steps + 0.05 * noise[1],
            1e-5 * (1 + 0.5 * noise[2]),  # smaller than min_delta
            1 + 0.1 * noise[3],
            np.where(noise[4] > 0.5, np.nan, 1 - 0.02 * steps + 0.02 * noise[5]),
            first_nan,
            np.where(noise[4] > 1, np.inf, 1 + noise[5]),
            np.cumsum(noise[6]),  # negative, too
        ]
    ).astype(np.float32)


@pytest.mark.parametrize("patience", [0, 1, 2, 3])
@pytest.mark.parametrize("cooldown", [0, 1, 2, 3])
def test_plateau_equals_keras(patience, cooldown):
    lr, drops = 0.01, 0
    numbers = np.random.default_rng((patience, cooldown))
    for mode, min_delta, factor, min_lr in (
        ("min", 1e-4, 0.1, 1e-5),  # the blog's
        ("min", 0.03, 0.5, 1e-3),
        ("max", 1e-4, 0.1, 1e-5),
        ("max", 0.03, 0.7, 0.0),
    ):
        options = dict(
            mode=mode,
            factor=factor,
            patience=patience,
            min_delta=min_delta,
            cooldown=cooldown,
        )
        control = plateau(**options, min_scale=min_lr / lr)
        values = histories(numbers) * (1 if mode == "min" else -1)
        start = jax.tree.map(lambda a: jnp.stack([a] * len(values)), control.init())  # noqa: B023

        def epoch(state, value, control=control):
            state = jax.vmap(control.update)(state, value)
            return state, state.scale

        scales = jax.jit(lambda s, v, epoch=epoch: jax.lax.scan(epoch, s, v)[1])(
            start, values.T
        )
        for history, scale in zip(values, np.asarray(scales).T, strict=True):
            want = keras_rates(history.tolist(), lr=lr, min_lr=min_lr, **options)
            np.testing.assert_allclose(lr * scale, want, rtol=1e-5)
            drops += len(set(want)) - 1
    assert drops > 20  # not everything stood still


def test_plateau_by_hand():
    """Patience 1, factor 0.1: drops at the first epoch without improvement (FACTS)."""
    control = plateau(min_scale=1e-3)
    state, scales = control.init(), []
    for loss in (2.0, 1.0, 0.99995, 0.9, 0.95, math.nan, 0.95, 0.95):
        state = control.update(state, loss)
        scales.append(float(state.scale))
    want = [1, 1, 0.1, 0.1, 0.01, 0.001, 0.001, 0.001]  # 0.99995: by less than 1e-4
    np.testing.assert_allclose(scales, want, rtol=1e-5)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(state))


def test_plateau_without_min_delta():
    """Keras takes min_delta=0: any improvement counts."""
    control = plateau(min_delta=0.0)
    state = control.update(control.init(), 1.0)
    state = control.update(state, 0.999999)
    assert float(state.scale) == 1
    state = control.update(state, 0.999999)
    assert float(state.scale) == pytest.approx(0.1)


def test_plateau_never_raises_the_rate():
    """Keras leaves a rate that is below min_lr alone."""
    control = plateau(min_scale=10.0)
    state = control.init()
    for loss in (1.0, 0.5, 0.5, 0.5):
        state = control.update(state, loss)
        assert float(state.scale) <= 1
