"""One exported program for any number of images, on CPU, GPU and TPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from vgg_jax.nn.conv import conv2d
from vgg_jax.nn.vgg import VGG

PLATFORMS = ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    "variant, dtype, batch_norm, tolerance",
    [
        pytest.param("A", "float32", True, 1e-5, marks=pytest.mark.slow),
        pytest.param("A", "bfloat16", False, 1e-2, marks=pytest.mark.slow),
        pytest.param("C", "float32", False, 1e-5, marks=pytest.mark.slow),
        pytest.param("C", "bfloat16", True, 1e-2, marks=pytest.mark.slow),
    ],
)
def test_one_network_for_every_batch(variant, dtype, batch_norm, tolerance, request):
    """The same logits as the direct call, up to rounding.

    In bfloat16 those of a call without kernels of our own, which round elsewhere.
    """
    if dtype == "bfloat16":
        request.getfixturevalue("without_kernels")
    model = VGG(variant, 10, 1 / 32, hidden=(8,), dtype=dtype, batch_norm=batch_norm)
    assert model.conv == "auto"
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    program = exported(model.apply, variables, (32, 32, 3), "float32")
    want = np.asarray(jax.jit(model.apply)(variables, images))
    for batch in (1, 3, 8):
        got = program.call(variables, images[:batch])
        np.testing.assert_allclose(got, want[:batch], atol=tolerance, rtol=tolerance)
    assert np.ptp(want, axis=0).max() > 10 * tolerance  # images are told apart


@pytest.mark.parametrize(
    "size, kernel, dtype, tolerance",
    [
        (4, 3, "float32", 1e-4),  # Winograd
        (4, 3, "bfloat16", 1e-1),  # narrow maps, side by side in a batch of 8
        (2, 3, "float32", 1e-4),  # Karatsuba
        (2, 5, "float32", 1e-4),  # one matrix
    ],
)
def test_one_convolution_for_every_batch(size, kernel, dtype, tolerance):
    numbers = np.random.default_rng(0)
    shapes = ((8, size, size, 32), (kernel, kernel, 32, 4), (4,))
    x, w, b = (jnp.asarray(numbers.normal(size=shape), dtype) for shape in shapes)
    program = exported(lambda wb, x: conv2d(x, *wb), (w, b), x.shape[1:], dtype)
    for batch in (1, 8):
        got, want = program.call((w, b), x[:batch]), conv2d(x[:batch], w, b)
        np.testing.assert_allclose(
            np.float32(got), np.float32(want), atol=tolerance, rtol=tolerance
        )


def test_gradients_for_every_batch():
    model = VGG("conv3-4 conv1-4 | conv3-4 |", 3, head="compact", batch_norm=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), x)
    gradient = jax.grad(lambda v, x: jnp.square(model.apply(v, x)).sum())
    got = exported(gradient, variables, x.shape[1:], x.dtype).call(variables, x)
    for ours, theirs in zip(
        jax.tree.leaves(got), jax.tree.leaves(gradient(variables, x)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def exported(function, variables, shape, dtype):
    """`function(variables, images)` for all platforms, as read from a file.

    Written and read only where flatbuffers is installed.
    """
    (count,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((count, *shape), dtype)
    program = export.export(jax.jit(function), platforms=PLATFORMS)(variables, images)
    assert program.platforms == PLATFORMS
    try:
        return export.deserialize(program.serialize())
    except ImportError:
        return program
