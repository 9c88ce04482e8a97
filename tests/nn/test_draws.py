"""Initial weights drawn in one loop: the bits of Flax's own, called alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vgg_jax import backend
from vgg_jax.nn import draws
from vgg_jax.nn.initializers import INITIALIZERS
from vgg_jax.nn.vgg import VGG

# Of INITIALIZERS, as Flax has them; "identity" is none of its.
FLAX = nn.initializers
THEIRS = {
    "he": (FLAX.he_normal(), FLAX.he_normal()),
    "glorot_uniform": (FLAX.glorot_uniform(), FLAX.glorot_uniform()),
    "lecun": (FLAX.lecun_normal(), FLAX.lecun_normal()),
    "torchvision": (
        FLAX.variance_scaling(2.0, "fan_out", "normal"),
        FLAX.normal(0.01),
    ),
    "paper": (FLAX.normal(0.1), FLAX.normal(0.1)),
}
KEY, X = jax.random.key(3), jnp.zeros((1, 16, 16, 3))


@pytest.fixture
def jit(monkeypatch):
    """As a run makes its first state; without any optimisation last bits differ."""
    monkeypatch.setenv("XLA_FLAGS", "")  # the quick tests ask for level 0
    return partial(jax.jit, compiler_options=backend.options_to_run_once())


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("shape", [(3, 3, 3, 40), (1, 1, 40, 9), (130, 30)], ids=str)
def test_alone_it_has_the_bits_of_flax(name, shape, jit):
    kind = int(len(shape) == 2)
    ours, theirs = INITIALIZERS[name][kind], THEIRS[name][kind]
    made = [jit(init, static_argnums=1)(KEY, shape) for init in (ours, theirs)]
    np.testing.assert_array_equal(*made)


def test_beside_the_identity_are_the_bits_of_flax(jit):
    theirs = FLAX.variance_scaling(1 / 3, "fan_in", "uniform")
    ours, shape = INITIALIZERS["identity"][0], (3, 3, 5, 40)
    found, want = (jit(f, static_argnums=1)(KEY, shape) for f in (ours, theirs))
    np.testing.assert_array_equal(found[..., 5:], want[..., 5:])
    np.testing.assert_array_equal(found[1, 1, :, :5], np.eye(5))


def network(name):
    """Of arrays smaller than a piece, of several, and of no whole number of them."""
    return VGG(
        "conv3-8 | conv3-80 conv1-96 |", 10, hidden=(90,), kernel_init=name, conv="lax"
    )


def loops(init):
    return str(jax.make_jaxpr(init)(KEY, X)).count("scan[")


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("lecun", "paper")))
        for name in INITIALIZERS
    ],
)
def test_together_they_have_the_same_bits(name, jit):
    model = network(name)
    together = partial(draws.init, model)
    of_normals = name in ("torchvision", "paper")
    assert loops(model.init) == 0 and bool(loops(together)) != of_normals
    made = [jit(init)(KEY, X) for init in (together, model.init)]
    assert max(leaf.size for leaf in jax.tree.leaves(made[0])) > 2 * draws._PIECE
    jax.tree.map(np.testing.assert_array_equal, *made)


@pytest.mark.parametrize("impl", ["rbg", "threefry2x32"])
def test_other_random_numbers_are_jax_s_own(impl, jit):
    """Which do not depend on their place alone, or not in this way."""
    key, together = jax.random.key(3, impl=impl), partial(draws.init, network("he"))
    with jax.threefry_partitionable(False):
        made = [jit(f)(key, X) for f in (together, network("he").init)]
    jax.tree.map(np.testing.assert_array_equal, *made)
