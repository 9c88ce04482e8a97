"""Muon against `optax.contrib` and the singular value decomposition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib

from vgg_jax.errors import ConfigError
from vgg_jax.training import muon
from vgg_jax.training.config import resolve
from vgg_jax.training.sgd import SGD

REDUCED = contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    "shape", [(3, 3, 3, 64), (3, 3, 16, 32), (1, 1, 48, 48), (5, 5, 8, 4)]
)
def test_kernels_move_as_optax_moves_them(shape):
    gradient = {"kernel": random(*shape)}
    peer = contrib.scale_by_muon(
        beta=0.9, nesterov=True, weight_dimension_numbers={"kernel": REDUCED}
    )
    with jax.numpy_dtype_promotion("standard"):
        moved, _ = jax.jit(peer.update)(gradient, peer.init(gradient))
    expected = moved["kernel"]
    inputs, outputs = shape[0] * shape[1] * shape[2], shape[3]
    expected = expected * max(1, outputs / inputs) ** 0.5  # Jordan's, by shape

    ours = SGD(nesterov=True, weight_decay=0.0, muon=0.5).transformation()
    params = jax.tree.map(jnp.zeros_like, gradient)
    state = ours.init(params)
    update = jax.jit(partial(ours.update, learning_rate=0.2))
    updates, _ = update(gradient, state, params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * expected, atol=2e-6)


def test_singular_values_become_one():
    """Jordan: those not far below the largest end in [0.7, 1.2]; vectors stay."""
    u, _, vt = np.linalg.svd(random(12, 30), full_matrices=False)
    x = (u * np.geomspace(1, 0.02, 12)) @ vt
    matrix = muon.orthogonal(jnp.asarray(x, jnp.float32))
    values = np.diag(u.T @ np.asarray(matrix) @ vt.T)
    assert values.min() > 0.65 and values.max() < 1.25
    np.testing.assert_allclose((u * values) @ vt, matrix, atol=1e-4)
    assert np.isfinite(muon.orthogonal(jnp.zeros((3, 4)))).all()


def test_other_parameters_keep_sgd():
    gradient = {
        "conv1_1": {"kernel": random(3, 3, 4, 8), "bias": random(8)},
        "fc8": {"kernel": random(8, 10), "bias": random(10)},
    }
    params = jax.tree.map(jnp.ones_like, gradient)

    def updates(**options):
        transform = SGD(decay="decoupled", **options).transformation()
        state = transform.init(params)
        return transform.update(gradient, state, params, learning_rate=0.2)[0]

    with_muon, plain = updates(muon=0.5), updates()
    for layer, name in (("conv1_1", "bias"), ("fc8", "kernel"), ("fc8", "bias")):
        np.testing.assert_array_equal(with_muon[layer][name], plain[layer][name])
    kernels = with_muon["conv1_1"]["kernel"], plain["conv1_1"]["kernel"]
    assert not np.allclose(*kernels)


def test_muon_needs_a_decay_of_the_weights_themselves():
    from configs import default

    settings = default.get_config()
    settings.optimizer.muon = 0.5
    resolve(settings)
    settings.optimizer.decay = "l2"
    with pytest.raises(ConfigError, match="optimizer.muon=0.5 .*decay='decoupled'"):
        resolve(settings)
