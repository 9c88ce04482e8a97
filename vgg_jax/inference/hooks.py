"""A network with activations changed on their way: the base of explanations."""

from collections.abc import Callable

import jax
from flax import linen as nn

from vgg_jax.interop.network import Network, check_network
from vgg_jax.nn.images import ValueRange, network_input
from vgg_jax.nn.preprocessing import PREPROCESSING
from vgg_jax.nn.vgg import Activations

# The name of a layer and its activation -> what the network goes on with.
Hook = Callable[[str, jax.Array], jax.Array]


def unit_range(
    network: Network, images: jax.typing.ArrayLike, value_range: ValueRange | None
) -> jax.Array:
    """Checks images of a program and returns them in [0, 1], the units of gradients.

    Args:
        network: that is to see them.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        value_range: of floating-point images (`images.network_input`).

    Returns:
        float32 `[B, H, W, C]`.

    Raises:
        ConfigError: the images are not what was declared, or not the network's.
    """
    check_network(network)
    unit = PREPROCESSING["unit"]
    return network_input(images, unit, value_range, network.channels)


def run(network: Network, unit: jax.Array, hook: Hook, last: str = "") -> jax.Array:
    """Runs a network whose named activations pass through a hook.

    Args:
        network: see `Network`.
        unit: `[B, H, W, C]` in [0, 1].
        hook: called with our name of each layer that has one and its activation; what
            it returns, of the same shape and type, is what the next layer sees.
        last: our name of the layer to end with; "": the last one, for logits.

    Returns:
        The activation of the last layer, float32 for logits.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> silenced = lambda name, x: 0 * x if name == "relu2_1" else x
    >>> run(network, jax.numpy.ones((1, 8, 8, 3)), silenced).any().item()
    False
    """

    def intercept(call, args, kwargs, context):
        if isinstance(context.module, Activations):
            name, x = args
            args = name, hook(name, x)
        return call(*args, **kwargs)

    seen = network_input(unit, network.preprocessing, (0, 1))
    with nn.intercept_methods(intercept):
        return network.model.apply(network.variables, seen, last=last)  # pyright: ignore


def unchanged(name: str, x: jax.Array) -> jax.Array:
    """The hook that changes nothing."""
    del name
    return x
