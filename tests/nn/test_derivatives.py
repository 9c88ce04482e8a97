"""Derivatives of every mode and order.

Layers against Flax's `max_pool` and `BatchNorm`, which JAX differentiates itself;
networks by the identities between the modes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vgg_jax.errors import ConfigError
from vgg_jax.nn.normalization import batch_norm
from vgg_jax.nn.pooling import max_pool
from vgg_jax.nn.vgg import VGG

TINY = {"variant": "conv3-6 conv1-4 | conv3-5 |", "num_classes": 3, "width": 1.0}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ties(*shape):
    """Windows of few different values, so that most have several maxima."""
    return np.random.default_rng(0).integers(-1, 2, shape).astype(np.float32)


def flax_pool(x):
    with jax.numpy_dtype_promotion("standard"):
        return nn.max_pool(x, (2, 2), (2, 2))


def flax_norm(x, scale, bias):
    """Returns the output and the statistics, which `momentum=0` leaves bare."""
    module = nn.BatchNorm(use_running_average=False, momentum=0.0)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": jnp.zeros_like(bias), "var": jnp.ones_like(bias)},
    }
    with jax.numpy_dtype_promotion("standard"):
        y, new = module.apply(variables, x, mutable=["batch_stats"])
    return y, new["batch_stats"]["mean"], new["batch_stats"]["var"]


X, SCALE, BIAS = numbers(3, 6, 5, 7), numbers(7, seed=1), numbers(7, seed=2)
FUNCTIONS = {
    "max pool": (max_pool, flax_pool, (ties(2, 6, 7, 3),)),
    "batch norm": (batch_norm, flax_norm, (X, SCALE, BIAS)),
}


def scalar(function):
    """A loss that is not quadratic in what `function` returns."""
    return lambda *a: sum(jnp.sin(y).sum() for y in jax.tree.leaves(function(*a)))


def forward(function, primals, tangents):
    return jax.jvp(function, primals, tangents)


def forward_over_reverse(function, primals, tangents):
    gradient = jax.grad(scalar(function), tuple(range(len(primals))))
    return jax.jvp(gradient, primals, tangents)


def reverse_over_reverse(function, primals, tangents):
    arguments = tuple(range(len(primals)))
    gradient = jax.grad(scalar(function), arguments)

    def along(*primals):
        parts = jax.tree.map(lambda g, t: (g * t).sum(), gradient(*primals), tangents)
        return sum(jax.tree.leaves(parts))

    return jax.grad(along, arguments)(*primals)


def linearized(function, primals, tangents):
    return jax.linearize(function, *primals)[1](*tangents)


def of_many(function, primals, tangents):
    """Gradients of two sets of inputs at once."""
    both = [jnp.stack(pair) for pair in zip(primals, tangents, strict=True)]
    return jax.vmap(jax.grad(scalar(function), tuple(range(len(primals)))))(*both)


MODES = [forward, forward_over_reverse, reverse_over_reverse, linearized, of_many]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_layer_equals_flax(name, mode):
    ours, flax, primals = FUNCTIONS[name]
    tangents = tuple(numbers(*a.shape, seed=3) for a in primals)
    got, want = (
        jax.jit(mode, static_argnums=0)(f, primals, tangents) for f in (ours, flax)
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


def network(conv, **options):
    """A loss of the parameters, these, and a direction among them."""
    model = VGG(**TINY, head="compact", conv=conv, **options)
    x = numbers(2, 8, 8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    params, rest = (
        variables["params"],
        {k: v for k, v in variables.items() if k == "batch_stats"},
    )

    def loss(params):
        logits, _ = model.apply(
            {"params": params, **rest}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sin(logits).sum()

    return loss, params, jax.tree.map(lambda a: numbers(*a.shape, seed=4), params)


def dot(a, b):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), a, b)))


def distance(got, want):
    """Norm of the difference relative to the norm of the second, over all leaves."""
    flat = lambda tree: np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])
    return np.linalg.norm(flat(got) - flat(want)) / np.linalg.norm(flat(want))


def hessian_products(loss):
    """Forward over reverse and reverse over reverse, compiled."""
    gradient = jax.grad(loss)
    return jax.jit(
        lambda params, along: (
            jax.jvp(gradient, (params,), (along,))[1],
            jax.grad(lambda p: dot(gradient(p), along))(params),
        )
    )


@pytest.mark.parametrize(
    "pool", [pytest.param("max", marks=pytest.mark.slow), "average"]
)
@pytest.mark.parametrize(
    "batch_norm", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_a_network_of_plain_convolutions_has_every_derivative(batch_norm, pool):
    loss, params, along = network("lax", batch_norm=batch_norm, pool=pool)
    pushed = jax.jit(lambda p, v: jax.jvp(loss, (p,), (v,))[1])(params, along)
    pulled = dot(jax.jit(jax.grad(loss))(params), along)
    assert distance(pushed, pulled) < 1e-4
    assert distance(*hessian_products(loss)(params, along)) < 1e-4


@pytest.mark.parametrize("pool", ["max", "average"])
def test_the_cpu_algorithms_have_the_gradient_of_plain_convolutions(pool):
    """Of the whole network: what XLA fuses depends on the neighbours of a layer."""
    got, want = (
        jax.jit(jax.grad(loss))(params)
        for loss, params, _ in (
            network(conv, batch_norm=True, pool=pool) for conv in ("auto", "lax")
        )
    )
    assert distance(got, want) < 1e-5


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("transform", [jax.jit, lambda f: f])
def test_forward_mode_of_the_cpu_algorithms_is_refused_in_one_line(transform):
    loss, params, along = network("auto")
    with pytest.raises(ConfigError) as error:
        transform(lambda p: jax.jvp(loss, (p,), (along,)))(params)
    assert str(error.value).endswith(
        "on CPU, where its gradients are hand-written: "
        "build the network with conv='lax'"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, tolerance",
    [("float32", 1e-4), pytest.param("bfloat16", 0.1, marks=pytest.mark.slow)],
)
def test_the_cpu_algorithms_have_second_derivatives(dtype, tolerance):
    """Those of plain convolutions."""
    got, want = (
        hessian_products(loss)(params, along)
        for loss, params, along in (
            network(conv, dtype=dtype, batch_norm=True) for conv in ("auto", "lax")
        )
    )
    for a, b in zip(got, want, strict=True):
        assert distance(a, b) < tolerance


def test_forward_mode_is_allowed_where_plain_convolutions_run():
    """The same "auto" network, for a GPU."""
    loss, params, along = network("auto")
    program = jax.jit(lambda p, v: jax.jvp(loss, (p,), (v,)))
    text = jax.export.export(program, platforms=["cuda"])(params, along).mlir_module()
    assert text.count("stablehlo.convolution") > 3


def test_gradients_of_each_image():
    """`vmap` over images of gradients by the parameters sums to the whole gradient."""
    model = VGG(**TINY, head="compact")
    x = numbers(4, 8, 8, 3)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    loss = lambda p, x: jnp.sin(model.apply({"params": p}, x)).sum()
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, x[:, None])
    whole = jax.jit(jax.grad(loss))(params, x)
    for a, b in zip(jax.tree.leaves(each), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a.sum(0), b, rtol=1e-3, atol=1e-4)
