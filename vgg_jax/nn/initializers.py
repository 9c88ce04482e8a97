"""Initial weights, by name."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

Initializer = nn.initializers.Initializer  # (key, shape, dtype) -> weights


def _identity_first(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Returns as many identity filters as input channels, then PyTorch's default.

    Jordan (2024), "94% on CIFAR-10 in 3.29 seconds", section 3.3.
    """
    kernel, _, channels, features = shape
    w = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)
    n, centre = min(channels, features), kernel // 2
    identity = jnp.zeros((kernel, kernel, channels, n), dtype)
    identity = identity.at[centre, centre].set(jnp.eye(channels, n, dtype=dtype))
    return w.at[..., :n].set(identity)


def _both(init: Initializer) -> tuple[Initializer, Initializer]:
    return init, init


_normal = nn.initializers.normal
_torch_conv = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# name -> initialisers of convolution kernels and of dense kernels. Biases start at 0.
INITIALIZERS: dict[str, tuple[Initializer, Initializer]] = {
    "he": _both(nn.initializers.he_normal()),
    "glorot_uniform": _both(nn.initializers.glorot_uniform()),  # Keras' default
    "lecun": _both(nn.initializers.lecun_normal()),  # Flax' default
    "torchvision": (_torch_conv, _normal(0.01)),
    "paper": _both(_normal(0.1)),  # section 3.1: *variance* 10^-2
    "identity": (_identity_first, nn.initializers.lecun_normal()),
}
