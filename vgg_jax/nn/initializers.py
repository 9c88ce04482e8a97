"""Initial weights, by name."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from vgg_jax.nn.draws import Draw

Initializer = nn.initializers.Initializer  # (key, shape, dtype) -> weights
# Of a normal distribution of deviation 1 without what is beyond 2.
_TRUNCATED = np.float32(0.87962566103423978)


def _fans(shape: tuple[int, ...]) -> dict[str, float]:
    *_, channels, features = shape
    pixels = math.prod(shape) / channels / features
    return {"in": channels * pixels, "average": (channels + features) * pixels / 2}


def _scaled(scale: float, fan: str, distribution: str) -> Draw:
    """Returns `variance_scaling` of Flax, to its bits."""

    def factor(shape: tuple[int, ...]) -> np.float32:
        variance = np.float32(scale / _fans(shape)[fan])
        if distribution == "uniform":
            return np.sqrt(np.float32(3) * variance)
        return np.sqrt(variance) / _TRUNCATED

    return Draw(distribution, factor)


_lecun = _scaled(1.0, "in", "truncated_normal")
_torch = _scaled(1 / 3, "in", "uniform")  # PyTorch's default
_normal = nn.initializers.normal
_torchvision = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _identity_first(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Returns as many identity filters as input channels, then PyTorch's default.

    Jordan (2024), "94% on CIFAR-10 in 3.29 seconds", section 3.3.
    """
    kernel, _, channels, features = shape
    w = _torch(key, shape, dtype)
    n, centre = min(channels, features), kernel // 2
    identity = jnp.zeros((kernel, kernel, channels, n), dtype)
    identity = identity.at[centre, centre].set(jnp.eye(channels, n, dtype=dtype))
    return w.at[..., :n].set(identity)


def _both(init: Initializer) -> tuple[Initializer, Initializer]:
    return init, init


# name -> initialisers of convolution kernels and of dense kernels. Biases start at 0.
INITIALIZERS: dict[str, tuple[Initializer, Initializer]] = {
    "he": _both(_scaled(2.0, "in", "truncated_normal")),
    "glorot_uniform": _both(_scaled(1.0, "average", "uniform")),  # Keras' default
    "lecun": _both(_lecun),  # Flax' default
    "torchvision": (_torchvision, _normal(0.01)),
    "paper": _both(_normal(0.1)),  # section 3.1: *variance* 10^-2
    "identity": (_identity_first, _lecun),
}
