"""Initial weights, by name."""

import jax.numpy as jnp
from flax import linen as nn


def _identity_first(key, shape, dtype=jnp.float32):
    """As many identity filters as there are input channels, then PyTorch's default.

    Jordan (2024), "94% on CIFAR-10 in 3.29 seconds", section 3.3.
    """
    kernel, _, channels, features = shape
    w = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)
    n, centre = min(channels, features), kernel // 2
    identity = (
        jnp.zeros((kernel, kernel, channels, n))
        .at[centre, centre]
        .set(jnp.eye(channels, n))
    )
    return w.at[..., :n].set(identity)


_normal = nn.initializers.normal
_torch_conv = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# name -> initialiser of convolution kernels, of dense kernels. Biases start at zero.
INITIALIZERS = {
    "he": (nn.initializers.he_normal(), nn.initializers.he_normal()),
    "glorot_uniform": (nn.initializers.glorot_uniform(),) * 2,  # Keras' default
    "lecun": (nn.initializers.lecun_normal(),) * 2,  # Flax' default
    "torchvision": (_torch_conv, _normal(0.01)),
    "paper": (_normal(0.1), _normal(0.1)),  # section 3.1: *variance* 10^-2
    "identity": (_identity_first, nn.initializers.lecun_normal()),
}
