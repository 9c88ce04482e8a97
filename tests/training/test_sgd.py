"""SGD against loops written from their definitions.

FACTS: docs/facts.md section 3, where each rule is quoted from its source.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.training.sgd import DECAYS, SGD

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
    """Weights after the steps of `SGD`."""
    transform = SGD(
        **{"momentum": MOMENTUM, "weight_decay": WD} | options
    ).transformation()

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
    assert set(DECAYS) == set(RULES)


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
        transform = SGD(
            decay="l2", weight_decay=0.1, clip_norm=clip_norm
        ).transformation()
        updates, _ = transform.update(
            slope, transform.init(start), start, learning_rate=0.5
        )
        return [np.asarray(updates["a"][name]).ravel() for name in ("kernel", "bias")]

    for clip_norm, scale in ((0.0, 1.0), (10.0, 1.0), (2.0, 2 / 5)):
        kernel, bias = first(clip_norm)
        np.testing.assert_allclose(kernel, [-0.5 * 3 * scale, 0], rtol=1e-6)
        np.testing.assert_allclose(bias, -0.5 * (4 * scale + 0.1), rtol=1e-6)


def test_norm_biases_learn_faster():
    """By hand: one step of plain SGD, lr 0.1, l2 0.5, gradient 1 at weight 2."""
    params = {"conv1_1": {"kernel": 2.0, "bias": 2.0}, "bn1_1": {"bias": 2.0}}
    params = jax.tree.map(jnp.asarray, params)
    grads = jax.tree.map(jnp.ones_like, params)
    tx = SGD(
        momentum=0.0, decay="l2", weight_decay=0.5, bias_scale=64.0
    ).transformation()
    updates, _ = tx.update(grads, tx.init(params), params, learning_rate=0.1)
    moved = jax.tree.map(float, updates)
    assert moved["conv1_1"] == pytest.approx(
        {"kernel": -0.1 * (1 + 1), "bias": -0.1 * (1 + 1)}
    )
    assert moved["bn1_1"] == pytest.approx({"bias": -0.1 * (64 + 1)})


def test_an_unknown_decay_is_told():
    with pytest.raises(ConfigError, match="decay='F'.*decoupled, constant, l2"):
        SGD(decay="F")


RATES_OF = ("*=0.5", "conv1_1=3", "bn1_1/bias=0.1")  # factors below: the last decides
FACTORS = {
    "conv1_1/kernel": 3,
    "conv1_1/bias": 3,
    "bn1_1/scale": 0.5,
    "bn1_1/bias": 0.1,
}


@pytest.mark.parametrize("decay", RULES)
def test_layers_have_learning_rates_of_their_own(decay):
    """As the rule's loop with that rate; "constant" decay does not know the rate."""
    got = run(decay=decay, layer_rates=RATES_OF, nesterov=True)
    for name, factor in FACTORS.items():
        layer, parameter = name.split("/")
        rates = [factor * rate for rate in RATES]
        want = loop(RULES[decay], START[layer][parameter], nesterov=True, rates=rates)
        np.testing.assert_allclose(got[layer][parameter], want, rtol=1e-4)


def test_muon_has_them_too():
    """Its updates do not know how long a gradient is, and decay is by the rate."""
    numbers = np.random.default_rng(0)
    kernel = jnp.asarray(numbers.normal(size=(3, 3, 4, 8)), jnp.float32)
    start = {"conv1_1": {"kernel": kernel}}
    options = {"start": start, "muon": 0.5, "rates": [0.1]}
    moved = [
        run(**options, layer_rates=rates)["conv1_1"]["kernel"] - kernel
        for rates in ((), ("conv*=0.2",))
    ]
    np.testing.assert_allclose(moved[1], 0.2 * moved[0], rtol=1e-3, atol=1e-6)


def test_without_layer_rates_the_state_is_that_of_older_versions():
    """The learning rate, the velocity and the decay: so that their runs resume."""
    assert len(SGD().transformation().init(START)) == 3


@pytest.mark.parametrize(
    "entry", ["fc8", "fc8=", "fc8=x", "fc8=0", "fc8=-1", "fc8=inf", "fc8=nan", "=2"]
)
def test_a_rate_that_is_none_is_told(entry):
    with pytest.raises(ConfigError, match="layer_rates=.*pattern=factor .* 'fc8=10'"):
        SGD(layer_rates=(entry,))


def test_a_rate_of_no_layer_is_told():
    with pytest.raises(ConfigError, match="optimizer.layer_rates='fc9' matches no"):
        run(layer_rates=("fc9=2",))


def test_of_several_rates_for_a_layer_the_last_decides():
    """Of a pattern that is repeated, too: its place is where it stands last."""
    rates = ("conv*=2", "conv1_1=10", "conv*=3", "bn*=5")
    plain, scaled = (
        SGD(momentum=0.0, weight_decay=0.0, layer_rates=entries).transformation()
        for entries in ((), rates)
    )
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), START)
    updates, expected = (
        transform.update(params, transform.init(params), params, learning_rate=0.5)[0]
        for transform in (scaled, plain)
    )
    for layer, factor in (("conv1_1", 3), ("bn1_1", 5)):
        for name, update in updates[layer].items():
            np.testing.assert_allclose(update, factor * expected[layer][name])


def test_a_velocity_kept_in_bfloat16():
    """Computed in float32, then rounded; by hand in NumPy."""
    optimizer = SGD(weight_decay=0.0, state_dtype="bfloat16").transformation()
    params = {"fc8": {"kernel": jnp.zeros(3)}}
    gradients = np.float32([[1.0, 0.3, 1e-3], [0.7, -0.3, 1e-3], [0.01, 0.2, 1e-3]])
    velocity, state = np.zeros(3, jnp.bfloat16), optimizer.init(params)
    for gradient in gradients:
        wanted = (
            np.float32(0.9) * velocity.astype(np.float32) - np.float32(0.1) * gradient
        )
        velocity = wanted.astype(jnp.bfloat16)
        updates, state = optimizer.update(
            {"fc8": {"kernel": jnp.asarray(gradient)}}, state, params, learning_rate=0.1
        )
        np.testing.assert_allclose(updates["fc8"]["kernel"], wanted, rtol=1e-6)
        (kept,) = jax.tree.leaves(state)
        assert kept.dtype == jnp.bfloat16
        np.testing.assert_array_equal(kept, velocity)
