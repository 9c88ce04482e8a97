"""The kernels of our own, against XLA's convolution and NumPy.

`test_conv.py` holds every layer of every network to float64.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vgg_jax import machine
from vgg_jax import mesh as meshes
from vgg_jax.nn import algorithms, conv, direct, fused, operations, pixel_sums, winograd
from vgg_jax.nn.pooling import max_pool, pool2d
from vgg_jax.nn.vgg import VGG

pytestmark = [
    pytest.mark.usefixtures("cpu"),
    pytest.mark.skipif(not machine.kernel_kind(), reason="there are none here"),
]
RANDOM = np.random.default_rng(0)


def normal(*shape, dtype="float32"):
    return jnp.asarray(RANDOM.normal(size=shape), dtype)


def product(factors):
    return np.linalg.multi_dot([np.eye(len(factors[0])), *map(np.array, factors)])


def test_factors_are_those_of_winograd():
    ours = (algorithms.F4.inputs, algorithms.F4.kernel, algorithms.F4.outputs)
    for factors, matrix in zip(ours, winograd.F4[1:], strict=True):
        np.testing.assert_array_equal(product(factors), matrix)


@pytest.mark.parametrize("algorithm", algorithms.ALGORITHMS, ids=lambda a: a.name)
def test_algorithms_are_convolutions(algorithm):
    """Of a row of `tile` outputs, in float64; nothing is outside of a pair."""
    d, g = RANDOM.normal(size=algorithm.seen), RANDOM.normal(size=3)
    inputs, kernel, outputs = map(product, algorithm[3:])
    after = algorithm.tile + 2 - algorithm.before - algorithm.seen
    around = np.pad(d, (1 - algorithm.before, max(after, 0)))[: algorithm.tile + 2]
    want = np.correlate(around, g, "valid")
    np.testing.assert_allclose(outputs @ (kernel @ g * (inputs @ d)), want, atol=1e-12)


def all_passes(function, x, w, b, g):
    y, pull = jax.vjp(function, x, w, b)
    return y, *pull(g)


def plain(x, w, *b):
    """XLA's convolution, in the type of its arguments."""
    return direct.plain(x, w) + (b[0][None, None, None] if b else 0)


def check(shape, features, dtype, tolerance):
    """Values and all three gradients against XLA's in float32."""
    x, w = normal(*shape, dtype=dtype), normal(3, 3, shape[3], features, dtype=dtype)
    b, g = normal(features, dtype=dtype), normal(*shape[:3], features, dtype=dtype)
    found = jax.jit(partial(all_passes, fused.conv3x3))(x, w, b, g)
    exact = (np.asarray(a, np.float32) for a in (x, w, b, g))
    want = jax.jit(partial(all_passes, plain))(*exact)
    for ours, theirs in zip(found, want, strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        error = np.linalg.norm(np.asarray(ours, np.float32) - theirs)
        assert error <= tolerance * np.linalg.norm(theirs)


# More tiles than are computed together, groups of channels, panels, and tails of each.
SHAPES = [
    ((9, 13, 9, 70), 50),
    ((70, 2, 2, 130), 33),
    ((5, 1, 2, 3), 1),
    ((1, 3, 40, 17), 100),
    ((1, 8, 8, 64), 64),
    ((3, 4, 4, 16), 16),
    ((2, 9, 8, 3), 40),
    ((0, 8, 8, 16), 5),
]


@pytest.fixture(params=algorithms.REGISTERS)
def kind(request, monkeypatch):
    """Both layouts where the machine has the wider; its own otherwise."""
    if request.param == "AVX512" != machine.kernel_kind():
        pytest.skip("this machine has no AVX512")
    monkeypatch.setattr(machine, "kernel_kind", lambda: request.param)
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-3)])
@pytest.mark.parametrize("shape, features", SHAPES, ids=str)
def test_passes(shape, features, dtype, tolerance):
    check(shape, features, dtype, tolerance)


def test_bfloat16_is_rounded_once_and_to_even():
    """With the bias. A pixel's products are exact in float32; NaN and infinity stay."""
    x = normal(4001, 1, 1, 1, dtype="bfloat16")
    x = x.at[:4, 0, 0, 0].set(jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 0.0], x.dtype))
    w = normal(3, 3, 1, 40, dtype="bfloat16")
    b = normal(40, dtype="bfloat16")
    exact = np.asarray(x[:, 0], np.float32) * np.asarray(w[1, 1], np.float32)
    exact += np.asarray(b, np.float32)
    y = jax.jit(fused.conv3x3)(x, w, b)
    found = np.asarray(y[:, 0, 0].astype(jnp.float32))
    want = np.asarray(jnp.asarray(exact).astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(found, want[:, 0])


PIXELS = [(7, 9, 5, 33), (1, 1, 1, 1), (64, 30, 30, 16), (0, 3, 3, 4)]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 4e-3)])
@pytest.mark.parametrize("shape", PIXELS, ids=str)
def test_sums_over_pixels(shape, dtype, tolerance):
    x = normal(*shape, dtype=dtype) + jnp.asarray(1, dtype)
    found = jax.jit(pixel_sums.total)(x)
    want = np.asarray(x, np.float64).sum((0, 1, 2))
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), want, rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("shape", PIXELS, ids=str)
def test_totals_and_products(shape, dtype):
    x, y = (normal(*shape, dtype=dtype) + jnp.asarray(1, dtype) for _ in range(2))
    found = jax.jit(pixel_sums.total_and_product)(x, y)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    for total, want in zip(found, (y, x * y), strict=True):
        assert total.dtype == jnp.float32
        np.testing.assert_allclose(total, want.sum((0, 1, 2)), rtol=1e-5, atol=1e-3)


def test_many_equal_numbers_are_summed():
    """All in a row they would round the same way 25,000 times."""
    x = jnp.full((100, 64, 64, 16), 0.1)
    np.testing.assert_allclose(pixel_sums.total(x), 100 * 64 * 64 * 0.1, rtol=5e-5)
    total, product = pixel_sums.total_and_product(x, x)
    np.testing.assert_allclose(total, 100 * 64 * 64 * 0.1, rtol=5e-5)
    np.testing.assert_allclose(product, 100 * 64 * 64 * 0.01, rtol=5e-5)


X, W, B = normal(2, 6, 5, 20), normal(3, 3, 20, 24), normal(24)
ALL = X, W, B
MOVED = tuple(normal(*a.shape) for a in ALL)


def cubed(function):
    return lambda *arrays: (function(*arrays) ** 3).sum()


def squared_gradients(function):
    gradients = jax.grad(cubed(function), (0, 1, 2))
    return lambda *arrays: sum((g**2).sum() for g in gradients(*arrays))


DERIVATIVES = {
    "forward": lambda f: jax.jvp(f, ALL, MOVED),
    "by one": lambda f: jax.jvp(lambda w: f(X, w, B), (W,), MOVED[1:2]),
    "reverse": lambda f: jax.grad(cubed(f), (0, 1, 2))(*ALL),
    "of a gradient": lambda f: jax.jvp(jax.grad(cubed(f), (0, 1, 2)), ALL, MOVED),
    "second": lambda f: jax.grad(squared_gradients(f), (0, 1, 2))(*ALL),
    "of each image": lambda f: jax.vmap(
        lambda x: jax.grad(cubed(f), (1, 2))(x[None], W, B)
    )(X),
    "of each kernel": lambda f: jax.vmap(lambda w: f(X, w, B), in_axes=4)(
        jnp.stack([W, 2 * W], 4)
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name):
    found, want = (DERIVATIVES[name](f) for f in (fused.conv3x3, plain))
    scaled = lambda tree: jax.tree.map(lambda a, b: a / abs(b).max(), tree, want)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=0, atol=2e-5),
        scaled(found),
        scaled(want),
    )


def test_the_derivative_of_a_sum():
    found = jax.grad(lambda x: (pixel_sums.total(x) ** 2).sum())(X)
    want = jnp.broadcast_to(2 * X.sum((0, 1, 2)), X.shape)
    np.testing.assert_allclose(found, want, rtol=1e-5)


def of_totals(total_and_product):
    def number(x, y):
        total, product = total_and_product(x, y)
        return (jnp.sin(total) * product + product**2).sum()

    return number


def energy(function):
    return lambda *maps: sum((g**2).sum() for g in jax.grad(function, (0, 1))(*maps))


MAPS, MOVED_MAPS = (X, normal(*X.shape)), (normal(*X.shape), normal(*X.shape))
DERIVATIVES_OF_TOTALS = {
    "forward": lambda f: jax.jvp(f, MAPS, MOVED_MAPS),
    "by the first": lambda f: jax.jvp(
        lambda x: f(x, MAPS[1]), MAPS[:1], MOVED_MAPS[:1]
    ),
    "of the same": lambda f: jax.grad(lambda x: f(x, x))(X),
    "reverse": lambda f: jax.grad(f, (0, 1))(*MAPS),
    "of a gradient": lambda f: jax.jvp(jax.grad(f, (0, 1)), MAPS, MOVED_MAPS),
    "second": lambda f: jax.grad(energy(f), (0, 1))(*MAPS),
    "of each": lambda f: jax.vmap(jax.grad(f, (0, 1)))(*(a[:, None] for a in MAPS)),
}


@pytest.mark.parametrize("name", DERIVATIVES_OF_TOTALS)
def test_derivatives_of_totals_and_products(name):
    plain = lambda x, y: (y.sum((0, 1, 2)), (x * y).sum((0, 1, 2)))
    found, want = (
        DERIVATIVES_OF_TOTALS[name](of_totals(f))
        for f in (pixel_sums.total_and_product, plain)
    )
    scaled = lambda tree: jax.tree.map(lambda a, b: a / abs(b).max(), tree, want)
    close = partial(np.testing.assert_allclose, rtol=0, atol=2e-5)
    jax.tree.map(close, scaled(found), scaled(want))


FEW = [
    *[((1, 4, 4, 34), 50), ((1, 3, 7, 16), 1), ((2, 2, 2, 6), 70), ((1, 1, 2, 2), 32)],
    *[((1, 4, 5, 3), 64), ((1, 1, 8, 1), 16), ((2, 4, 1, 4), 17), ((1, 3, 5, 9), 8)],
]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-3)])
@pytest.mark.parametrize("shape, features", FEW, ids=str)
def test_without_tiles(shape, features, dtype, tolerance):
    x, b = normal(*shape, dtype=dtype), normal(features, dtype=dtype)
    w = normal(3, 3, shape[3], features, dtype=dtype)
    if dtype == "float32" or machine.multiplies_pairs():
        assert fused.is_direct(x.shape, w)
    found = jax.jit(fused.conv3x3)(x, w, b, fused.kernel(x, w))
    assert found.dtype == dtype
    want = plain(*(a.astype(jnp.float32) for a in (x, w, b)))
    error = jnp.linalg.norm(found.astype(jnp.float32) - want) / jnp.linalg.norm(want)
    assert error < tolerance


def test_prepared_kernels_have_no_gradient():
    """Zeros, which `conv.py` refuses to give."""
    u = fused.kernel(X, W)
    found = jax.grad(lambda u: fused.conv3x3(X, W, B, u).sum())(u)
    assert not found.any()


def test_which_have_no_tiles():
    w = normal(3, 3, 256, 512)
    assert fused.is_direct((1, 8, 4, 256), w) and not fused.is_direct((1, 8, 8, 256), w)
    assert fused.is_direct((2, 2, 2, 256), w) and not fused.is_direct((3, 2, 2, 256), w)


def test_more_pixels_than_a_kernel_was_prepared_for():
    """As of `jax.vmap`, where they are computed at once."""
    x = normal(40, 4, 4, 20)
    call = jax.jit(
        jax.vmap(lambda x: fused.conv3x3(x[None], W, B, fused.kernel(x[None], W)))
    )
    np.testing.assert_allclose(call(x)[:, 0], plain(x, W, B), rtol=1e-4, atol=1e-4)


def test_prepared_kernels_of_each_image():
    call = jax.jit(jax.vmap(lambda x: fused.conv3x3(x[None], W, B, fused.kernel(X, W))))
    np.testing.assert_allclose(call(X)[:, 0], plain(X, W, B), rtol=1e-4, atol=1e-4)


def test_more_images_at_once_for_vmap():
    """And not one after the other."""
    mapped = jax.vmap(jax.grad(lambda x: fused.conv3x3(x[None], W, B).sum()))
    assert "while" not in str(jax.make_jaxpr(mapped)(X))
    assert "scan" not in str(jax.make_jaxpr(mapped)(X))


def test_without_jit():
    with jax.disable_jit():
        found = fused.conv3x3(*ALL)
    np.testing.assert_allclose(found, plain(*ALL), rtol=1e-4, atol=1e-4)


def test_nan_is_found_by_the_debugger():
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        jax.block_until_ready(jax.jit(fused.conv3x3)(X * jnp.nan, W, B))


POOL = partial(pool2d, kind="max")


@pytest.mark.parametrize(
    "dtype", [name for name in ("float32", "bfloat16") if machine.prefers_kernels(name)]
)
@pytest.mark.parametrize(
    "shape", [(3, 6, 4, 17), (70, 2, 2, 64), (1, 8, 10, 33), (0, 4, 4, 3)], ids=str
)
def test_pools(shape, dtype):
    """The bits of the form that `test_conv.py` holds to Flax's, with ties and NaN."""
    x = jnp.asarray(RANDOM.integers(-1, 2, shape), dtype)
    x = jnp.where(RANDOM.random(shape) < 0.05, jnp.asarray(jnp.nan, dtype), x)
    g = normal(shape[0], shape[1] // 2, shape[2] // 2, shape[3], dtype=dtype)
    program = jax.jit(lambda x: jax.vjp(POOL, x)[1](g) + (POOL(x),))
    assert "vgg_jax_to_first_maximum" in program.lower(x).as_text()
    want = jax.vjp(max_pool, x)[1](g) + (max_pool(x),)
    exact = lambda tree: jax.tree.map(lambda a: np.asarray(a, np.float32), tree)
    jax.tree.map(np.testing.assert_array_equal, exact(program(x)), exact(want))


POOL_DERIVATIVES = {
    "of a gradient": lambda f: jax.jvp(f, (X,), (MOVED[0],)),
    "second": lambda f: jax.grad(lambda x: (f(x) ** 2).sum())(X),
    "of each image": lambda f: jax.vmap(lambda x: f(x[None]))(X),
}


@pytest.mark.parametrize("name", POOL_DERIVATIVES)
def test_derivatives_of_pools(name):
    cubed = lambda pool: jax.grad(lambda x: (pool(x[:, :, :4]) ** 3).sum())
    found, want = (POOL_DERIVATIVES[name](cubed(pool)) for pool in (POOL, max_pool))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), found, want)


def gradient(x, w):
    loss = lambda w: conv.conv2d(x, w, jnp.zeros(w.shape[-1])).sum()
    return jax.grad(loss)(w)


def test_they_are_in_a_program_of_this_machine_and_in_no_other():
    assert "vgg_jax_by_kernel_f4" in jax.jit(gradient).lower(X, W).as_text()
    for platform in ("cpu", "cuda", "tpu"):
        exported = jax.export.export(jax.jit(gradient), platforms=[platform])(X, W)
        assert "vgg_jax_by_kernel" not in exported.mlir_module()
        if platform == "cpu":
            np.testing.assert_allclose(
                exported.call(X, W), gradient(X, W), rtol=1e-4, atol=1e-4
            )


def test_an_exported_program_has_the_fastest_of_XLA():
    """Whose own convolution of 2x2 maps takes 200 times as long as the other layers."""
    x, w = jnp.ones((4, 2, 2, 64)), jnp.ones((3, 3, 64, 64))
    text = jax.export.export(jax.jit(gradient), platforms=["cpu"])(x, w).mlir_module()
    assert "stablehlo.convolution" not in text


def test_of_images_on_a_mesh_of_one_device():
    """As they are where a run keeps its images on the device."""
    x = jax.device_put(X, meshes.spread(meshes.over(1)))
    assert "vgg_jax_by_kernel_f4" in jax.jit(gradient).lower(x, W).as_text()
    np.testing.assert_array_equal(jax.jit(gradient)(x, W), jax.jit(gradient)(X, W))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_of_images_on_an_explicit_mesh_of_one_device(dtype):
    """By XLA's operations, whose types say along which axis they are spread."""
    mesh = jax.make_mesh((1,), ("x",))
    on_mesh = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
    options = {"hidden": (8,), "batch_norm": True, "pool": "average"}
    model = VGG("conv3-16 |", 4, dtype=dtype, **options)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), "float32")
    variables = on_mesh(jax.jit(model.init)(jax.random.key(0), x), P())
    program = jax.jit(jax.grad(lambda *arrays: model.apply(*arrays).sum()))
    found, want = program(variables, on_mesh(x, P("x"))), program(variables, x)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        error, share = np.linalg.norm(ours - theirs), {"float32": 1e-4}.get(dtype, 0.02)
        assert error <= share * np.linalg.norm(theirs) + 1e-6
    text = program.lower(variables, on_mesh(x, P("x"))).as_text()
    assert "vgg_jax_" not in text


def test_in_a_shard_map_whose_kernels_alone_vary():
    """Under `check_vma`, the result varies as they do."""
    mapped = jax.shard_map(
        lambda x, w: conv.conv2d(x, w, jnp.zeros(w.shape[-1])),
        mesh=meshes.over(1),
        in_specs=(P(), P(None, None, None, ("data", "model"))),
        out_specs=P(None, None, None, ("data", "model")),
    )
    np.testing.assert_allclose(mapped(X, W), direct.plain(X, W), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checked", [False, True])
def test_in_a_shard_map(checked):
    """With `check_vma`, whose rules the kernels do not know, XLA's are right too."""
    mapped = jax.shard_map(
        lambda x, w: conv.conv2d(x, w, jnp.zeros(w.shape[-1])),
        mesh=meshes.over(1),
        in_specs=(P(("data", "model")), P()),
        out_specs=P(("data", "model")),
        check_vma=checked,
    )
    text = jax.jit(mapped).lower(X, W).as_text()
    assert ("vgg_jax_convolve" in text) == (not checked)
    np.testing.assert_allclose(mapped(X, W), direct.plain(X, W), rtol=1e-4, atol=1e-4)


def test_calls_on_many_threads_have_the_same_bits():
    """None waits for another for ever."""

    @jax.jit
    def program(*arrays):
        y, pull = jax.vjp(fused.conv3x3, *arrays)
        return y, max_pool(y), *pull(y)

    arrays = normal(24, 16, 16, 40), normal(3, 3, 40, 40), normal(40)
    first = program(*arrays)
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: program(*arrays), range(64)):
            jax.tree.map(np.testing.assert_array_equal, found, first)


@pytest.fixture
def asked_anew():
    machine._compiles.cache_clear()
    yield
    machine._compiles.cache_clear()


def test_without_llvmlite_there_are_none(monkeypatch, asked_anew):
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    assert not machine.kernel_kind() and not machine.prefers_kernels("float32")


def test_a_llvmlite_that_does_not_work_is_said_once(monkeypatch, caplog, asked_anew):
    from llvmlite import binding  # there, where these tests run

    def forbidden():
        raise OSError("executable memory is forbidden")

    monkeypatch.setattr(binding, "initialize_native_target", forbidden)
    assert not machine.kernel_kind() and not machine.kernel_kind()
    (record,) = caplog.records
    assert "executable memory is forbidden" in record.getMessage()
    assert "vgg_jax[cpu]" in record.getMessage()


def test_amx_is_faster_in_bfloat16(monkeypatch):
    monkeypatch.setattr(machine, "cpu_kind", lambda: "AMX")
    assert machine.prefers_kernels("float32") and not machine.prefers_kernels(
        "bfloat16"
    )
    assert not operations.suits(X.astype(jnp.bfloat16))
