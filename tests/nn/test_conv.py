"""The convolution and the pools against float64 NumPy and Flax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vgg_jax import backend, machine
from vgg_jax.nn import by_xla, conv, pieces, pooling, relu, winograd
from vgg_jax.nn.architecture import CONFIGURATIONS
from vgg_jax.nn.architecture import layers as network_layers

FAST_MAX, FAST_MEAN = (partial(pooling.pool2d, kind=kind) for kind in pooling.POOLS)
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-3}  # relative 2-norm


def shapes(size, divide=1):
    """(height, width, C, K, kernel) of every convolution of every configuration."""
    divided = lambda channels: channels if channels == 3 else channels // divide
    return {
        (*spec.size, divided(spec.inputs), divided(spec.channels), spec.kernel)
        for variant in CONFIGURATIONS
        for spec in network_layers(variant, size=(size, size))
        if spec.kind == "conv"
    }


# The deep maps at 224 px with an eighth of the channels: 64 in place of 512.
DEEP = {shape for shape in shapes(224, 8) if shape[0] in (14, 7)} | {(7, 7, 64, 64, 3)}
ODD = {
    (1, 1, 48, 40, 1),
    (1, 1, 48, 40, 3),
    (1, 1, 48, 40, 5),
    (1, 2, 48, 40, 3),
    (2, 1, 48, 40, 3),
    (2, 2, 48, 40, 5),
    (3, 3, 48, 40, 3),
    (3, 3, 48, 40, 5),
    (5, 9, 48, 40, 3),
    (5, 9, 48, 40, 5),
    (5, 9, 48, 40, 1),
    (5, 9, 3, 40, 3),
    (1, 6, 48, 40, 3),
}
SHAPES = sorted(shapes(32) | DEEP | ODD)


def operands(shape, batch, dtype):
    """Image, kernel, bias, cotangent, rounded to `dtype`: in `dtype` and float64."""
    height, width, channels, features, kernel = shape
    numbers = np.random.default_rng((*shape, batch))
    sizes = (
        (batch, height, width, channels),
        (kernel, kernel, channels, features),
        (features,),
        (batch, height, width, features),
    )
    rounded = [jnp.asarray(numbers.normal(size=size), dtype) for size in sizes]
    return rounded, [np.asarray(a, np.float64) for a in rounded]


def reference(x, w, b, g):
    """Value and the three gradients by shifts, in the operands' type."""
    (_, height, width, _), r = x.shape, len(w) // 2
    padded = np.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
    y, dx, dw = np.zeros_like(g) + b, np.zeros_like(padded), np.zeros_like(w)
    for i, j in np.ndindex(w.shape[:2]):
        at = np.s_[:, i : i + height, j : j + width]
        y += padded[at] @ w[i, j]
        dx[at] += g @ w[i, j].T
        dw[i, j] = np.tensordot(padded[at], g, ((0, 1, 2), (0, 1, 2)))
    return y, dx[:, r : r + height, r : r + width], dw, g.sum((0, 1, 2))


def value_and_gradients(x, w, b, g):
    y, pull = jax.vjp(conv.conv2d, x, w, b)
    return y, *pull(g)


compiled = jax.jit(value_and_gradients)


def check(shape, batch, dtype, tolerance=TOLERANCE, program=compiled):
    rounded, exact = operands(shape, batch, dtype)
    results = program(*rounded)
    names = ("value", "input gradient", "kernel gradient", "bias gradient")
    for name, got, want in zip(names, results, reference(*exact), strict=True):
        assert got.dtype == dtype and got.shape == want.shape, name
        error = np.linalg.norm(np.asarray(got, np.float64) - want)
        assert error <= tolerance[dtype] * np.linalg.norm(want), name


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_layer(shape, dtype, kernels):
    check(shape, 2, dtype)


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 512, 512, 3), (4, 4, 256, 512, 3), (4, 4, 512, 512, 1), (1, 1, 64, 48, 3)],
)
def test_bfloat16_as_networks_by_kernels_train(shape, kernels):
    """Without oneDNN, where matrix products do it."""
    options = backend.compiler_options("bfloat16", by_kernels=True)
    program = jax.jit(value_and_gradients, compiler_options=options)
    check(shape, 2, "bfloat16", program=program)


@pytest.mark.parametrize("batch", [8, 16, 24])
@pytest.mark.parametrize(
    "shape", [(4, 4, 64, 48, 3), (7, 7, 64, 48, 3), (3, 5, 8, 9, 3)]
)
def test_narrow_maps_side_by_side(shape, batch, without_kernels):
    check(shape, batch, "bfloat16")


@pytest.mark.parametrize(
    "batch",
    [1, 7, 16, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 5, 9, 11, 12))],
)
@pytest.mark.parametrize(
    "size, channels, dtype",
    [
        (32, 64, "bfloat16"),
        (16, 64, "bfloat16"),
        (32, 3, "bfloat16"),
        (32, 3, "float32"),
    ],
)
def test_every_batch_size(size, channels, dtype, batch, kernels):
    """With 2 ... 12 bfloat16 images oneDNN's kernel gradient is garbage on AMX."""
    check((size, size, channels, 64, 3), batch, dtype)


# Every algorithm that works in pieces: direct, of few channels, F(4x4), its gradient.
LARGE = [
    ((8, 8, 48, 40, 3), "bfloat16"),
    ((8, 8, 3, 40, 3), "bfloat16"),
    ((6, 9, 72, 64, 3), "float32"),
    ((8, 8, 64, 64, 3), "float32"),
]


@pytest.mark.parametrize("shape, dtype", LARGE, ids=str)
def test_large_batches_in_pieces(shape, dtype, without_kernels, monkeypatch):
    height, width, channels, *_ = shape
    image = height * width * channels * jnp.dtype(dtype).itemsize
    cut = []
    count = pieces.count
    monkeypatch.setattr(pieces, "BYTES", 4 * image)
    monkeypatch.setattr(
        pieces, "count", lambda *a, **k: cut.append(count(*a, **k)) or cut[-1]
    )
    check(shape, 12, dtype)
    assert set(cut) & {3, 6, 12}


@pytest.fixture
def f2_everywhere(cpu, without_kernels, monkeypatch):
    monkeypatch.setattr(machine, "cpu_kind", lambda: by_xla.F2_KINDS[0])
    monkeypatch.setattr(by_xla, "_MIN_F2_PIXELS", 1)
    monkeypatch.setattr(by_xla, "_MIN_F2_PRODUCTS", 1)


@pytest.mark.parametrize(
    "shape", [(8, 8, 48, 40, 3), (4, 4, 64, 96, 3), (7, 5, 8, 9, 3)]
)
def test_bfloat16_by_f2(shape, f2_everywhere):
    """Its rounding is three times that of direct convolution (docs/results.md)."""
    x, w, b, _ = operands(shape, 4, "bfloat16")[0]
    check(shape, 4, "bfloat16", {"bfloat16": 1.2e-2})
    value = jax.jit(conv.conv2d)(x, w, b)
    assert (value != jax.jit(direct_value)(x, w, b)).any()


def direct_value(x, w, b):
    return conv._add_bias(by_xla._DIRECT(x, w), b)


def test_large_batches_by_f2_in_pieces(f2_everywhere, monkeypatch):
    cut, count = [], pieces.count
    monkeypatch.setattr(pieces, "BYTES", 2 * 8 * 8 * 48 * 2 * 2)
    monkeypatch.setattr(
        pieces, "count", lambda *a, **k: cut.append(count(*a, **k)) or cut[-1]
    )
    check((8, 8, 48, 40, 3), 8, "bfloat16", {"bfloat16": 1.2e-2})
    assert max(cut) > 1


@pytest.mark.parametrize("transform", [winograd.F2, winograd.F4])
def test_transforms_are_exact(transform):
    """`A^T [(G g) * (B^T d)]` is the convolution of any d and g, in float64."""
    numbers = np.random.default_rng(0)
    d, g = numbers.normal(size=transform.tile + 2), numbers.normal(size=3)
    inputs, kernel, outputs = (np.array(m) for m in transform[1:])
    want = np.correlate(d, g, "valid")
    np.testing.assert_allclose(outputs @ (kernel @ g * (inputs @ d)), want, atol=1e-12)


@pytest.mark.parametrize("implementation", relu.IMPLEMENTATIONS)
def test_relu_equals_flax(implementation):
    x = jnp.asarray([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf, -jnp.inf, jnp.nan])
    g = jnp.arange(1.0, 9.0)
    ours = jax.jit(lambda x: relu.relu(x, implementation=implementation))
    y, pull = jax.vjp(ours, x)
    want, pull_flax = jax.vjp(nn.relu, x)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(pull(g)[0], pull_flax(g)[0])


def test_reference_sees_a_wrong_gradient():
    """The tolerance leaves no room for one lost pixel."""
    (x, *rest), exact = operands((32, 32, 64, 64, 3), 2, "float32")
    want = reference(*exact)[2]
    got = compiled(x.at[0, 3, 4].set(0), *rest)[2]
    assert np.linalg.norm(got - want) > 10 * TOLERANCE["float32"] * np.linalg.norm(want)


@pytest.mark.parametrize("implementation, used", [("auto", False), ("lax", True)])
def test_small_float32_maps_avoid_lax_on_cpu(implementation, used, kernels):
    """XLA:CPU runs a 3x3 convolution of 2x2 maps 200x slower than the other layers."""

    def gradient(x, w):
        b = jnp.zeros(w.shape[-1:])
        return jax.grad(
            lambda *a: conv.conv2d(*a, b, implementation=implementation).sum(), (0, 1)
        )(x, w)

    for channels, features in ((512, 512), (3, 8), (8, 3)):
        x = jax.ShapeDtypeStruct((4, 2, 2, channels), jnp.float32)
        w = jax.ShapeDtypeStruct((3, 3, channels, features), jnp.float32)
        text = jax.jit(gradient).lower(x, w).as_text()
        assert ("stablehlo.convolution" in text) == used


@pytest.mark.parametrize("shape", [(2, 8, 8, 5), (3, 7, 9, 2), (1, 2, 3, 4)])
@pytest.mark.parametrize(
    "ours, flax",
    [
        (pooling.max_pool, nn.max_pool),
        (FAST_MAX, nn.max_pool),
        (FAST_MEAN, nn.avg_pool),
    ],
)
def test_pools_equal_flax(shape, ours, flax):
    numbers = np.random.default_rng(0)
    x = jnp.asarray(numbers.integers(-1, 2, shape), jnp.float32)  # mostly ties
    y, pull = jax.vjp(ours, x)
    with jax.numpy_dtype_promotion("standard"):
        want, pull_flax = jax.vjp(lambda x: flax(x, (2, 2), (2, 2)), x)
    np.testing.assert_array_equal(y, want)
    g = jnp.asarray(numbers.normal(size=y.shape), jnp.float32)
    np.testing.assert_array_equal(pull(g)[0], pull_flax(g)[0])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("implementation", conv.IMPLEMENTATIONS)
@pytest.mark.parametrize("size, kernel", [(8, 3), (4, 3), (2, 3), (2, 5), (4, 1)])
def test_no_images(size, kernel, implementation, dtype):
    """An empty batch has no output and zero gradients of the weights."""
    x = jnp.zeros((0, size, size, 32), dtype)
    w, b = jnp.ones((kernel, kernel, 32, 4), dtype), jnp.ones(4, dtype)
    loss = lambda *a: conv.conv2d(*a, implementation=implementation).sum()
    dx, dw, db = jax.jit(jax.grad(loss, (0, 1, 2)))(x, w, b)
    assert dx.shape == x.shape and not dw.any() and not db.any()


@pytest.mark.parametrize(
    "ours",
    [pooling.max_pool, *(partial(pooling.pool2d, kind=k) for k in pooling.POOLS)],
)
@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 1, 4, 3), (2, 1, 1, 3)])
def test_pools_of_nothing(shape, ours):
    """Neither an empty batch nor an image below a window is an error; NaN is none."""
    y, pull = jax.vjp(ours, jnp.ones(shape))
    assert y.shape == (shape[0], shape[1] // 2, shape[2] // 2, 3)
    assert (pull(y)[0] == 0).all() and pull(y)[0].shape == shape


@pytest.mark.parametrize("ours", [pooling.max_pool, FAST_MAX])
def test_a_window_with_nan_is_nan_and_has_no_gradient(ours):
    x = jnp.ones((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    y, pull = jax.vjp(ours, x)
    assert jnp.isnan(y[0, 0, 0, 0]) and jnp.isnan(y).sum() == 1
    (dx,) = pull(jnp.ones_like(y))
    assert not dx[0, :2, :2].any() and dx.sum() == 3
