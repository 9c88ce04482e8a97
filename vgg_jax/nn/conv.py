"""The one convolution that every VGG layer calls, fast on each platform.

Stride 1, zero padding that keeps the size ("SAME"), odd square kernels, NHWC / HWIO.
GPU and TPU get `lax.conv_general_dilated` and nothing else. On CPU a 3x3 kernel is
that of `fused.py`, where there is one for this machine; all else, and what is exported
or spread over devices, is the fastest of XLA's own operations (`by_xla.py`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vgg_jax import machine
from vgg_jax.errors import choose
from vgg_jax.nn import by_xla, direct, fused, pixel_sums
from vgg_jax.nn.by_platform import by_platform
from vgg_jax.nn.by_xla import ByKernels
from vgg_jax.nn.operations import suits
from vgg_jax.nn.reverse_mode import not_trained, reverse_mode_only

IMPLEMENTATIONS = ("auto", "lax")

# Where a kernel is prepared, and the CPU has no products for few pixels of its type,
# only so many times as few are "few" (`by_xla.has_few_pixels`).
_FEWER = 4


def conv2d(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array,
    *,
    implementation: str = "auto",
    prepared: Sequence[jax.Array] = (),
) -> jax.Array:
    """Convolves with stride 1 and zero padding that keeps the spatial size; adds `b`.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        w: `[k, k, C, K]` with odd k, dtype of `x`.
        b: `[K]`, dtype of `x`.
        implementation: "auto" picks by the shape, the type and the platform that the
            program is lowered for: a program exported for a GPU from a CPU host holds
            plain convolutions only. "lax" is `lax.conv_general_dilated` everywhere, as
            on GPU and TPU. Forward-mode derivatives need it: `jax.jvp` on CPU,
            `jax.jacfwd` inside `jax.jit` everywhere.
        prepared: what `prepared` returns of this kernel; it saves time where `x` has
            the shape that it was made for, and is passed over elsewhere. `w` cannot be
            differentiated then.

    Returns:
        `[B, H, W, K]` in the dtype of `x`; equal to `lax.conv_general_dilated` up to
        rounding (`tests/nn/test_conv.py`).

    Raises:
        ConfigError: `implementation` is unknown; forward-mode differentiation of
            "auto" was to run on CPU; or a prepared kernel was to be differentiated.

    >>> x, w, b = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), jnp.zeros(1)
    >>> conv2d(x, w, b)[0, :, :, 0].round().tolist()[0]  # a corner sees 2 x 2 pixels
    [4.0, 6.0, 6.0, 4.0]
    """
    choose(IMPLEMENTATIONS, implementation, "implementation")
    if implementation == "lax":
        return _biased(x, w, b)
    return by_platform(x, w, b, *prepared, cpu=_biased_on_cpu, default=_biased)


def prepared(shape: Sequence[int], w: jax.Array) -> tuple[jax.Array, ...]:
    """Returns what a CPU computes from a kernel before it convolves with it.

    Where the same kernel serves many calls, it need not be computed in each.

    Args:
        shape: of the input of the convolution, `[B, H, W, C]`.
        w: as for `conv2d`.

    Returns:
        One array, or several, of four times as many elements and more where there are
        few channels; for few pixels one of as many; none where the fastest algorithm
        takes the kernel as it is.

    >>> w = jnp.ones((3, 3, 64, 128))
    >>> [len(prepared((64, size, size, 64), w)) > 0 for size in (1, 8)]
    [False, True]
    """
    x: Any = jax.ShapeDtypeStruct(tuple(shape), w.dtype)
    if is_fused(x, w, prepared=True):
        return (fused.kernel(x, w),)
    algorithm = by_xla.algorithm(x, w)
    return tuple(algorithm.kernels(w)) if isinstance(algorithm, ByKernels) else ()


def quick_to_compile(dtype: DTypeLike) -> str:
    """Returns the implementation for a program of a type that runs a few times.

    Where 3x3 convolutions have no kernels of our own, what "auto" picks takes seconds
    to compile, more than such a program wins by it. "lax" differs by rounding.

    >>> quick_to_compile("float32") in ("auto", "lax")
    True
    """
    return "auto" if machine.prefers_kernels(jnp.dtype(dtype).name) else "lax"


def is_fused(x: jax.Array, w: jax.Array, *, prepared: bool) -> bool:
    """Returns whether `fused.py` is the fastest."""
    if w.shape[0] != 3 or by_xla.is_pointwise(x, w) or not suits(x, w):
        return False
    if prepared and fused.has_direct(x.dtype):
        return True
    return not by_xla.has_few_pixels(x, w, _FEWER if prepared else 1)


def _biased(x: jax.Array, w: jax.Array, b: jax.Array, *_: jax.Array) -> jax.Array:
    return _plus(direct.plain(x, w), b)


@jax.custom_jvp
def _plus(y: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `y + b`, such that the gradient of `b` is summed in float32.

    JAX itself sums that of a bfloat16 `b` in bfloat16, which on an H100 was up to 1.5%
    off (results/h100/tests.txt).
    """
    return y + b[None, None, None]


@_plus.defjvp
def _tangent(primals, tangents):
    dy, db = (tangent.astype(jnp.float32) for tangent in tangents)
    return _plus(*primals), (dy + db[None, None, None]).astype(primals[0].dtype)


def _biased_on_cpu(
    x: jax.Array, w: jax.Array, b: jax.Array, *prepared: jax.Array
) -> jax.Array:
    x, w, b, *kernels = reverse_mode_only(x, w, b, *prepared)
    if kernels:
        w, kernels = not_trained(w, kernels)
    ready = bool(kernels) and suits(x, w) and fused.made(kernels, x, w)
    if is_fused(x, w, prepared=ready):
        return fused.conv3x3(x, w, b, *kernels if ready else ())
    algorithm = by_xla.algorithm(x, w)
    if isinstance(algorithm, ByKernels) and algorithm.made(kernels, x):
        return _add_bias(algorithm.convolve(x, kernels), b)
    return _add_bias(algorithm(x, w), b)


@jax.custom_vjp
def _add_bias(y: jax.Array, b: jax.Array) -> jax.Array:
    return y + b[None, None, None]


def _add_bias_forward(y, b):
    return y + b[None, None, None], None


def _add_bias_backward(_, g):
    if suits(g):
        return g, pixel_sums.total(g)
    # Inside a training step, XLA:CPU sums over all axes but the last by loops that do
    # not vectorise: a fifth of the step. As a matrix product the sum costs nothing.
    flat = g.reshape(-1, g.shape[-1])
    return g, jnp.ones(flat.shape[0], g.dtype) @ flat  # which may be symbolic


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
