"""Products of matrices by our kernel, against NumPy's in float64."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax import machine
from vgg_jax.nn import matmul
from vgg_jax.nn.vgg import VGG

pytestmark = [
    pytest.mark.usefixtures("cpu"),
    pytest.mark.skipif(
        not (machine.prefers_kernels("bfloat16") and machine.multiplies_pairs()),
        reason="there is none here",
    ),
]
RANDOM = np.random.default_rng(0)


def normal(*shape, dtype="bfloat16"):
    return jnp.asarray(RANDOM.normal(size=shape), dtype)


def exact(array):
    return np.asarray(array).astype(np.float64)


def check(found, want):
    """Rounded once to bfloat16, of sums in float32."""
    assert found.dtype == jnp.bfloat16 and found.shape == want.shape
    # Half of a unit in the last of 8 bits, and what sums of float32 lose.
    error, large = np.abs(exact(found) - want), np.abs(want).max(initial=0)
    assert (error <= 2.0**-8 * np.abs(want) + 1e-5 * large).all()


# One row, one column, odd lengths; more units than at a time, more rows than a group.
SHAPES = [
    (1, 6, 5),
    (3, 7, 9),
    (14, 64, 32),
    (17, 1030, 45),
    (300, 65, 33),
    (128, 512, 10),
    (2, 1, 1),
    (0, 4, 3),
    (3, 0, 4),
    (3, 4, 0),
    (33, 2051, 70),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_and_its_gradients(shape):
    rows, inputs, features = shape
    x, w, g = normal(rows, inputs), normal(inputs, features), normal(rows, features)
    assert "vgg_jax_matmul" in jax.jit(matmul.product).lower(x, w).as_text()
    y, pull = jax.vjp(jax.jit(matmul.product), x, w)
    dx, dw = pull(g)
    check(y, exact(x) @ exact(w))
    check(dx, exact(g) @ exact(w).T)
    check(dw, exact(x).T @ exact(g))
    check(jax.jit(matmul.by_transposed)(g, w), exact(g) @ exact(w).T)
    check(jax.jit(matmul.of_transposed)(x, g), exact(x).T @ exact(g))


def test_what_is_no_number_stays_so():
    """Where it is, and nowhere else: in rows and columns beyond the last is nothing."""
    x, w = normal(5, 18), normal(18, 40)
    y = jax.jit(matmul.product)(x.at[2, 3].set(jnp.nan), w.at[4, 7].set(jnp.inf))
    np.testing.assert_array_equal(jnp.isnan(y), np.arange(5)[:, None] == [2] * 40)
    infinite = (np.arange(40) == 7) & (np.arange(5)[:, None] != 2)
    np.testing.assert_array_equal(jnp.isinf(y), infinite)


def test_a_row_has_the_same_bits_in_every_batch():
    x, w = normal(230, 700), normal(700, 50)
    all_rows = exact(jax.jit(matmul.product)(x, w))
    for count in (1, 9, 15, 29, 225):
        found = exact(jax.jit(matmul.product)(x[:count], w))
        np.testing.assert_array_equal(found, all_rows[:count])


def test_leading_axes_are_rows():
    x, w = normal(2, 3, 4, 20), normal(20, 6)
    check(matmul.product(x, w), exact(x) @ exact(w))


X, W = normal(4, 10), normal(10, 6)
MOVED = normal(4, 10), normal(10, 6)


def cubed(product):
    return lambda x, w: (product(x, w).astype(jnp.float32) ** 3).sum()


DERIVATIVES = {
    "forward": lambda f, x, w: jax.jvp(f, (x, w), MOVED),
    "reverse": lambda f, x, w: jax.grad(cubed(f), (0, 1))(x, w),
    "of a gradient": lambda f, x, w: jax.jvp(jax.grad(cubed(f), (0, 1)), (x, w), MOVED),
    "second": lambda f, x, w: jax.grad(
        lambda x, w: sum((g**2).sum() for g in jax.grad(cubed(f), (0, 1))(x, w)), (0, 1)
    )(x, w),
    "of each row": lambda f, x, w: jax.vmap(
        lambda x: jax.grad(cubed(f), 1)(x[None], w)
    )(x),
    "of each matrix": lambda f, x, w: jax.vmap(lambda w: f(x, w), in_axes=2)(
        jnp.stack([w, 2 * w], 2)
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name):
    """Of any order and mode, as those of XLA's product in float32."""
    found = DERIVATIVES[name](matmul.product, X, W)
    moved = tuple(m.astype(jnp.float32) for m in MOVED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "MOVED", moved)
        both = (a.astype(jnp.float32) for a in (X, W))
        want = DERIVATIVES[name](jnp.matmul, *both)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        error = np.linalg.norm(exact(ours) - exact(theirs))
        assert error <= 2e-2 * np.linalg.norm(exact(theirs))


DIMENSIONS = {
    "a layer's": (((2,), (0,)), ((), ())),
    "lists": ([[2], [0]], [[], []]),
    "of the second": (((2,), (1,)), ((), ())),
    "of a batch": (((2,), (1,)), ((0,), (0,))),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", DIMENSIONS)
def test_dot_general_is_that_of_jax(name, dtype):
    """By the kernel where it is a layer's, in bfloat16."""
    x, w = normal(8, 3, 8, dtype=dtype), normal(8, 8, dtype=dtype)
    if name == "of a batch":
        w = normal(8, 8, 4, dtype=dtype)
    call = partial(matmul.dot_general, dimension_numbers=DIMENSIONS[name])
    text = jax.jit(call).lower(x, w).as_text()
    ours = name in ("a layer's", "lists") and dtype == "bfloat16"
    assert ("vgg_jax_matmul" in text) == ours
    want = jax.lax.dot_general(x, w, DIMENSIONS[name])
    if ours:  # each rounded once
        np.testing.assert_allclose(exact(call(x, w)), exact(want), rtol=2**-7)
    else:
        np.testing.assert_array_equal(call(x, w), want)


def test_it_is_in_a_program_of_this_machine_and_in_no_other():
    assert "vgg_jax_matmul" in jax.jit(matmul.product).lower(X, W).as_text()
    for platform in ("cpu", "cuda", "tpu"):
        product = jax.jit(matmul.product)
        exported = jax.export.export(product, platforms=[platform])(X, W)
        assert "vgg_jax_matmul" not in exported.mlir_module()


def test_examples_of_an_accelerator_are_mapped_together():
    """And not one after the other, as by the kernel."""
    of_each = jax.vmap(
        jax.grad(lambda w, x: matmul.multiply(x[None], w).sum()), (None, 0)
    )
    exported = jax.export.export(jax.jit(of_each), platforms=["cuda"])(W, X)
    assert "while" not in exported.mlir_module()
    assert "while" in jax.jit(of_each).lower(W, X).as_text()


ON_FOUR = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from vgg_jax import mesh as meshes
from vgg_jax.nn import matmul
random = np.random.default_rng(0)
x, w = (jnp.asarray(random.normal(size=s), "bfloat16") for s in ((8, 70), (70, 40)))
want = jax.jit(matmul.product)(x, w)
for kind in ("checked", "unchecked", "by rows", "spread"):
    mesh = meshes.over(4)
    if kind == "by rows":
        function = meshes.by_rows(lambda w, x: matmul.product(x, w), mesh)
        program = jax.jit(lambda x, w: function(w, x))
    elif kind == "spread":
        program = jax.jit(matmul.product)
        x, w = meshes.in_parts(x, mesh), meshes.on_all(w, mesh)
    else:
        program = jax.jit(jax.shard_map(
            matmul.product, mesh=mesh, in_specs=(P(meshes.AXES), P()),
            out_specs=P(meshes.AXES), check_vma=kind == "checked"))
    by_kernel = "vgg_jax_matmul" in program.lower(x, w).as_text()
    print(kind, by_kernel, jnp.allclose(program(x, w), want, rtol=0.01, atol=0.01),
          bool((program(x, w) == want).all()) or not by_kernel, sep=",")
"""


def test_on_several_devices():
    """Each computes by the kernel, to the same bits, where it sees its rows alone."""
    flags = "--xla_force_host_platform_device_count=4"
    ran = subprocess.run(
        [sys.executable, "-c", ON_FOUR],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n")[:-1] == [
        "checked,False,True,True",
        "unchecked,True,True,True",
        "by rows,True,True,True",
        "spread,False,True,True",
    ]


@pytest.mark.parametrize("multiplies", [False, True])
def test_large_dense_layers_by_the_kernel(multiplies, monkeypatch):
    monkeypatch.setattr(machine, "multiplies_pairs", lambda: multiplies)
    assert VGG("D").is_by_kernels() == multiplies
    assert VGG("D", head="compact").is_by_kernels()
    assert not VGG("D", conv="lax").is_by_kernels()


@pytest.mark.parametrize("conv", ["auto", "lax"])
def test_the_dense_layers_of_a_network(conv):
    """All of them, and the 1x1 convolutions; none is left to XLA."""
    model = VGG("conv3-32 conv1-32 |", 10, hidden=(64,), dtype="bfloat16", conv=conv)
    images = jnp.zeros((2, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    loss = lambda variables: model.apply(variables, images).sum()
    text = jax.jit(jax.grad(loss)).lower(variables).as_text()
    is_ours = conv == "auto"
    assert ("dot_general" in text) == ("stablehlo.convolution" in text) == (not is_ours)
    assert ("vgg_jax_matmul" in text) == is_ours
