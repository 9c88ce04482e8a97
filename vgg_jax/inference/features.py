"""Activations of a network by name: what other programs use VGG for most."""

from collections.abc import Sequence

import jax
from jax import lax
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network, check_network
from vgg_jax.nn.images import ValueRange

# The last ReLU of each stage of VGG-16: what LPIPS and Johnson's losses look at.
LAST_OF_STAGES = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


def features(
    network: Network,
    images: ArrayLike,
    layers: Sequence[str] = LAST_OF_STAGES,
    *,
    value_range: ValueRange | None = None,
    stop_gradient: bool = False,
) -> dict[str, jax.Array]:
    """Returns activations by name; nothing is computed after the last one.

    A pure function of the network's weights and the images, for `jax.jit`, `jax.grad`,
    `jax.vmap` and sharded images; outside of `jax.jit` it compiles itself. The type of
    the computation, the kind of pooling and the algorithm of the convolutions are the
    network's: `network.configured(dtype="bfloat16", pool="average", conv="lax")`. On
    CPU, forward-mode derivatives need `conv="lax"`.

    Args:
        network: as `load` returns it.
        images: `[B, H, W, C]`, RGB, uint8 or floating point, of any size that the
            layers up to the last one leave a pixel of.
        layers: names in the paper's terms (`relu3_3`, `conv4_2`, `pool5`, `fc7`),
            torchvision's and timm's (`features.15`) or Keras' (`block3_conv3`).
        value_range: of floating-point images: what black and white are in them,
            `(0, 1)`, `(-1, 1)` or `(0, 255)`.
        stop_gradient: whether the activations are constants for `jax.grad`, as targets
            are.

    Returns:
        Name, as given -> activation: `[B, H, W, C]`, or `[B, features]` in the head,
        in the type in which the network computes.

    Raises:
        ConfigError: a layer is unknown or has no weights, or the images are not what
            they were said to be.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", head="compact"), "imagenet")
    >>> images = jax.numpy.zeros((2, 20, 30, 3))
    >>> found = features(network, images, ["relu1_1", "pool2"], value_range=(0, 1))
    >>> {name: activation.shape for name, activation in found.items()}
    {'relu1_1': (2, 20, 30, 8), 'pool2': (2, 5, 7, 16)}
    """
    check_network(network)
    found = network.activations(images, layers, value_range=value_range)
    return lax.stop_gradient(found) if stop_gradient else found


def check_loaded(network: Network, layers: Sequence[str], *, allowed: bool) -> None:
    """Refuses a network whose weights for layers are random, unless that is allowed.

    Args:
        network: what a loss is about to look through.
        layers: names in any convention.
        allowed: the caller's `random_weights=True`.

    Raises:
        ConfigError: a layer that they need has random weights; or it is no network.
    """
    check_network(network)
    if allowed or not network.random_layers:
        return
    needed = {name for last in layers for name in network.layers_until(last)}
    unloaded = [name for name in network.random_layers if name in needed]
    if unloaded:
        first = layer_names.resolve(network.model, unloaded[0])
        raise ConfigError(
            f"the weights of {first} ({len(unloaded)} of {len(needed)} layers) are "
            f"random: load a trained network, or say random_weights=True"
        )
