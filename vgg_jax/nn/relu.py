"""ReLU, on CPU with a gradient that is read off its output."""

import jax
import jax.numpy as jnp

from vgg_jax.errors import choose
from vgg_jax.nn.apart import apart
from vgg_jax.nn.by_platform import by_platform


def relu(x: jax.Array, *, implementation: str = "auto") -> jax.Array:
    """Returns `max(x, 0)`; the slope at 0 is 0.

    Args:
        x: of any shape.
        implementation: "auto" or "lax", as for `conv.conv2d`: forward-mode derivatives
            on CPU need "lax", which is `jax.nn.relu`.

    Raises:
        ConfigError: `implementation` is unknown.

    >>> x = jnp.asarray([-1.0, 0.0, 2.0])
    >>> relu(x).tolist(), jax.grad(lambda x: relu(x).sum())(x).tolist()
    ([0.0, 0.0, 2.0], [0.0, 0.0, 1.0])
    """
    return choose(IMPLEMENTATIONS, implementation, "implementation")(x)


@jax.custom_vjp
def _relu_on_cpu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


def _forward(x):
    y = jnp.maximum(x, 0)
    return y, y


@apart
def _slope(y, g):
    # The next layer keeps y. Fused with what follows, this would look at x again, and
    # keep that in memory from the forward to the backward pass too.
    return jnp.where(y > 0, g, 0)


def _backward(y, g):
    return (_slope(y, g),)


_relu_on_cpu.defvjp(_forward, _backward)


def _plain_relu(x: jax.Array) -> jax.Array:
    return jax.nn.relu(x)  # looked up when called: jax2onnx puts its own there


def _fast_relu(x: jax.Array) -> jax.Array:
    return by_platform(x, cpu=_relu_on_cpu, default=_plain_relu)


IMPLEMENTATIONS = {"auto": _fast_relu, "lax": _plain_relu}
