"""Batch normalisation against Flax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vgg_jax.errors import ConfigError
from vgg_jax.nn import normalization as norm


def images(dtype):
    numbers = np.random.default_rng(0)
    return jnp.asarray(3 + 2 * numbers.normal(size=(4, 6, 5, 7)), dtype)


def parameters():
    numbers = np.random.default_rng(1)
    params = {k: jnp.asarray(numbers.normal(size=7), jnp.float32) for k in PARAMS}
    return params, {"mean": jnp.full(7, 0.5), "var": jnp.full(7, 1.5)}


PARAMS = ("scale", "bias")


def outcome(module, x, g, **call):
    """Output, running averages and the gradients of input and parameters.

    Compiled as a user's program: sums in another order are off by more than 1e-5.
    """
    params, stats = parameters()

    def apply(params, x):
        y, updated = module.apply(
            {"params": params, "batch_stats": stats}, x, mutable=["batch_stats"], **call
        )
        return y, updated["batch_stats"]

    def all_of_it(params, x, g):
        y, pull, updated = jax.vjp(apply, params, x, has_aux=True)
        return {"y": y, "stats": updated, "gradients": pull(g)}

    optimized = {"xla_backend_optimization_level": 3}
    return jax.jit(all_of_it, compiler_options=optimized)(params, x, g)


def test_products_in_float16_do_not_overflow():
    """The largest number of that type is 65,504."""
    x = 300 * images("float16")
    g = 300 * jnp.asarray(np.random.default_rng(2).normal(size=x.shape), "float16")
    got = outcome(norm.BatchNorm(), x, g, train=True)
    want = outcome(norm.BatchNorm(implementation="lax"), x, g, train=True)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        b = np.asarray(b, np.float32)
        assert np.isfinite(b).all()
        np.testing.assert_allclose(
            np.asarray(a, np.float32), b, rtol=2e-2, atol=2e-2 * np.abs(b).max()
        )


def test_an_unknown_implementation_is_refused():
    for train in (False, True):
        with pytest.raises(ConfigError, match="implementation='fast' is unknown"):
            norm.BatchNorm(implementation="fast").init(
                jax.random.key(0), images("float32"), train=train
            )


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("train", [True, False])
def test_equals_flax(dtype, tolerance, train):
    x = images(dtype)
    g = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), dtype)
    got = outcome(norm.BatchNorm(), x, g, train=train)
    flax = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype)
    with jax.numpy_dtype_promotion("standard"):
        want = outcome(flax, x, g)
    assert got["y"].dtype == dtype
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        # Elsewhere flax adds in another order, and terms of a sum may cancel.
        size = 1 if jax.default_backend() == "cpu" else np.abs(b).max()
        np.testing.assert_allclose(a, b, tolerance, tolerance * size)


def test_gradient_equals_float64_by_hand():
    """dx = scale / std * (g - mean(g) - xhat * mean(g * xhat)), Ioffe & Szegedy."""
    x, (params, _) = images("float32"), parameters()
    g = np.random.default_rng(2).normal(size=x.shape)
    _, pull = jax.vjp(lambda x: norm.batch_norm(x, *params.values())[0], x)
    x64, axes = np.asarray(x, np.float64), (0, 1, 2)
    std = np.sqrt(x64.var(axes) + norm.EPSILON)
    hat = (x64 - x64.mean(axes)) / std
    want = g - g.mean(axes) - hat * (g * hat).mean(axes)
    want *= np.asarray(params["scale"], np.float64) / std
    np.testing.assert_allclose(pull(jnp.asarray(g, jnp.float32))[0], want, 1e-4, 1e-5)


def test_initial_averages_are_not_moved_by_init():
    x = images("float32")
    variables = norm.BatchNorm().init(jax.random.key(0), x, train=True)
    assert jax.tree.all(
        jax.tree.map(lambda a: (a == 0).all(), variables["batch_stats"]["mean"])
    )
    assert (variables["batch_stats"]["var"] == 1).all()
