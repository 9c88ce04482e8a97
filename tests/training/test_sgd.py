"""SGD, schedules and plateau against loops written from their definitions.

FACTS: the project's facts.md section 3, where each rule is quoted from its source.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.training import sgd as optimizer

WD, MOMENTUM = 0.02, 0.9  # strong, so that a wrong decay is far outside the tolerance
RATES = [0.05] * 20 + [0.005] * 20  # a tenfold drop in the middle
START = {
    "conv1_1": {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.ones(2)},
    "bn1_1": {"scale": np.array([2.0, -1.0]), "bias": np.array([0.3, -0.7])},
}
CURVATURE, OPTIMUM = 1.7, 0.4  # the loss: CURVATURE / 2 * (w - OPTIMUM)^2, each weight


def gradient(w):
    return CURVATURE * (w - OPTIMUM)


def run(rates=RATES, start=START, gradient=gradient, **options):
    """Weights after the steps of `optimizer.sgd`."""
    transform = optimizer.sgd(**{"momentum": MOMENTUM, "weight_decay": WD} | options)

    def step(carry, lr):
        w, state = carry
        g = jax.tree.map(gradient, w)
        updates, state = transform.update(g, state, w, learning_rate=lr)
        return (optax.apply_updates(w, updates), state), None

    start = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), start)
    rates = jnp.asarray(rates, jnp.float32)
    return jax.lax.scan(step, (start, transform.init(start)), rates)[0][0]


def move(w, v, lr, g, nesterov):
    """Keras' momentum, whose velocity contains the learning rate."""
    v = MOMENTUM * v - lr * g
    return (w + MOMENTUM * v - lr * g if nesterov else w + v), v


def tfa_sgdw(w, v, lr, wd, nesterov):
    """FACTS, tfa: `w <- (1 - wd) w; v <- m v - lr g(w_before); w <- w + v`."""
    g = gradient(w)
    return move((1 - wd) * w, v, lr, g, nesterov)


def published_sgdw(w, v, lr, wd, nesterov):
    """FACTS, Loshchilov & Hutter: the decay is `w -= lr * wd * w`."""
    g = gradient(w)
    return move(w - lr * wd * w, v, lr, g, nesterov)


def paper(w, v, lr, wd, nesterov):
    """FACTS, the paper: `g + wd * w` enters the momentum."""
    return move(w, v, lr, gradient(w) + wd * w, nesterov)


RULES = {"constant": tfa_sgdw, "decoupled": published_sgdw, "l2": paper}


def loop(rule, w, wd=WD, nesterov=False, rates=RATES):
    v = np.zeros_like(w)
    for lr in rates:
        w, v = rule(w, v, lr, wd, nesterov)
    return w


def test_no_decay_is_left_out():
    assert set(optimizer.DECAYS) == set(RULES)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", RULES)
def test_decay_of_every_parameter(decay, nesterov):
    got = run(decay=decay, nesterov=nesterov)
    want = jax.tree.map(lambda w: loop(RULES[decay], w, nesterov=nesterov), START)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), got, want)


@pytest.mark.parametrize("decay", RULES)
def test_biases_and_norms_are_spared(decay):
    got = run(decay=decay, decay_all=False)
    for layer, parameters in START.items():
        for name, w in parameters.items():
            want = loop(RULES[decay], w, WD if name == "kernel" else 0.0)
            np.testing.assert_allclose(got[layer][name], want, rtol=1e-4)


def test_the_rules_differ():
    """What the tests above rely on: no rule is within their tolerance of another."""
    w = START["conv1_1"]["kernel"]
    ends = [loop(rule, w) for rule in RULES.values()] + [loop(paper, w, 0.0)]
    ends += [loop(paper, w, nesterov=True)]
    for i, a in enumerate(ends):
        for b in ends[:i]:
            assert np.abs(a / b - 1).max() > 1e-2


def test_velocity_contains_the_learning_rate():
    """`trace`, then the rate (optax, PyTorch), is the same until the rate drops."""

    def optax_order(rates):
        w, v = START["conv1_1"]["kernel"], 0.0
        trace = optax.trace(MOMENTUM)
        state = trace.init(jnp.asarray(w))
        for lr in rates:
            v, state = trace.update(jnp.asarray(gradient(w)), state)
            w = w - lr * np.asarray(v)
        return w

    ours = [run(rates, weight_decay=0.0) for rates in (RATES[:20], RATES[:23])]
    before, after = (x["conv1_1"]["kernel"] for x in ours)
    np.testing.assert_allclose(before, optax_order(RATES[:20]), rtol=1e-4)
    assert np.abs(after - optax_order(RATES[:23])).max() > 0.1


@pytest.mark.parametrize("nesterov", [False, True])
def test_l2_is_pytorch_at_a_constant_rate(nesterov):
    """The algorithm box of torch.optim.SGD's documentation."""
    lr, got = 0.05, run([0.05] * 20, decay="l2", nesterov=nesterov)
    w, b = START["conv1_1"]["kernel"], None
    for _ in range(20):
        g = gradient(w) + WD * w
        b = g if b is None else MOMENTUM * b + g
        w = w - lr * (g + MOMENTUM * b if nesterov else b)
    np.testing.assert_allclose(got["conv1_1"]["kernel"], w, rtol=1e-4)


def test_constant_decay_halves_the_weights_each_epoch():
    """FACTS: x0.535 in 1,250 steps at 5e-4, whatever the rate; the others barely."""
    options = {"rates": np.full(1250, 0.01), "gradient": jnp.zeros_like}
    for decay, shrunk in (("constant", 0.535), ("decoupled", 0.9938)):  # .999995^1250
        got = run(decay=decay, weight_decay=5e-4, **options)
        ratio = got["conv1_1"]["kernel"] / START["conv1_1"]["kernel"]
        np.testing.assert_allclose(ratio, shrunk, atol=5e-4)


def test_clip_norm_scales_the_whole_gradient_before_decay():
    start = {"a": {"kernel": jnp.zeros((1, 2)), "bias": jnp.ones(1)}}
    slope = {"a": {"kernel": jnp.array([[3.0, 0]]), "bias": jnp.array([4.0])}}  # norm 5

    def first(clip_norm):
        transform = optimizer.sgd(decay="l2", weight_decay=0.1, clip_norm=clip_norm)
        updates, _ = transform.update(
            slope, transform.init(start), start, learning_rate=0.5
        )
        return [np.asarray(updates["a"][name]).ravel() for name in ("kernel", "bias")]

    for clip_norm, scale in ((0.0, 1.0), (10.0, 1.0), (2.0, 2 / 5)):
        kernel, bias = first(clip_norm)
        np.testing.assert_allclose(kernel, [-0.5 * 3 * scale, 0], rtol=1e-6)
        np.testing.assert_allclose(bias, -0.5 * (4 * scale + 0.1), rtol=1e-6)


@pytest.mark.parametrize(
    "call, known",
    [
        (lambda: optimizer.sgd(decay="F"), list(RULES)),
        (
            lambda: optimizer.schedule("F", lr=1, epochs=1, steps_per_epoch=1),
            ["plateau", "constant", "step", "cosine", "triangular"],
        ),
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
        ("constant", {"warmup_epochs": 2}, {0: 0.0, 4: 0.4, 8: 0.8, 39: 0.8}),
        ("cosine", {"warmup_epochs": 2}, {0: 0.0, 2: 0.2, 8: 0.8, 24: 0.4, 40: 0.0}),
        ("triangular", {"warmup_epochs": 2}, {6: 0.6, 8: 0.8, 24: 0.4, 40: 0.0}),
        (
            "step",
            {"warmup_epochs": 2, "boundaries": (5,), "factor": 0.5},
            {4: 0.4, 8: 0.8, 19: 0.8, 20: 0.4, 39: 0.4},
        ),
    ],
)
def test_schedules(name, options, points):
    rate = optimizer.schedule(name, lr=0.8, epochs=10, steps_per_epoch=4, **options)
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
    return optimizer.Plateau(**defaults | options)


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


def test_norm_biases_learn_faster_and_frozen_kernels_never_decay():
    """By hand: one step of plain SGD, lr 0.1, l2 0.5, gradient 1 at weight 2."""
    params = {
        "conv1_1": {"kernel": 2.0, "bias": 2.0, "frozen_kernel": 2.0},
        "bn1_1": {"bias": 2.0},
    }
    params = jax.tree.map(jnp.asarray, params)
    grads = {
        "conv1_1": {"kernel": 1.0, "bias": 1.0, "frozen_kernel": 0.0},
        "bn1_1": {"bias": 1.0},
    }
    tx = optimizer.sgd(momentum=0.0, decay="l2", weight_decay=0.5, bias_scale=64.0)
    updates, _ = tx.update(grads, tx.init(params), params, learning_rate=0.1)
    moved = jax.tree.map(float, updates)
    assert moved["conv1_1"] == pytest.approx(
        {"kernel": -0.1 * (1 + 1), "bias": -0.1 * (1 + 1), "frozen_kernel": 0.0}
    )
    assert moved["bn1_1"] == pytest.approx({"bias": -0.1 * (64 + 1)})
