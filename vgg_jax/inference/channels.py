"""The channels of a layer that respond most to an image."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.fields import check_value
from vgg_jax.fields import count as at_least
from vgg_jax.inference import hooks
from vgg_jax.inference.grad_cam import map_layer
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network
from vgg_jax.nn.preprocessing import ValueRange


class Channels(NamedTuple):
    """Channels of a layer, the most active first.

    Attributes:
        numbers: int32 `[B, N]`, from 0.
        means: float32 `[B, N]`, their activations averaged over the map.
        maps: float32 `[B, N, h, w]`, their activations.
    """

    numbers: jax.Array
    means: jax.Array
    maps: jax.Array


def active_channels(
    network: Network,
    images: ArrayLike,
    layer: str = "",
    *,
    count: int = 8,
    value_range: ValueRange | None = None,
) -> Channels:
    """Returns the channels whose activation has the largest mean over space.

    A pure function of weights and images.

    Args:
        network: see `Network`; it needs no head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        layer: in any convention; "": `grad_cam.default_layer`.
        count: how many.
        value_range: of floating-point images (`preprocessing.network_input`).

    Raises:
        ConfigError: the layer does not exist, has no map or fewer channels; or the
            images are not what was declared.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> images = jnp.zeros((2, 8, 8, 3), "uint8")
    >>> active_channels(network, images, "relu2_1", count=5).maps.shape
    (2, 5, 4, 4)
    """
    check_value("count", count, int, at_least(1))
    unit = hooks.unit_range(network, images, value_range)
    name = map_layer(network, unit, layer)
    network.check_weights(name)
    channels = channels_of(network, name)
    if count > channels:
        raise ConfigError(f"count={count}: {name} has {channels} channels")
    return _active(network, unit, name, count)


@partial(jax.jit, static_argnames=("layer", "count"))
def _active(network: Network, unit: jax.Array, layer: str, count: int) -> Channels:
    seen = hooks.run(network, unit, hooks.unchanged, layer).astype(jnp.float32)
    means, numbers = lax.top_k(seen.mean((1, 2)), count)
    maps = jnp.take_along_axis(seen, numbers[:, None, None], axis=3)
    return Channels(numbers, means, jnp.moveaxis(maps, 3, 1))


def channels_of(network: Network, layer: str) -> int:
    """Returns the number of channels, or of values, of a layer by our name."""
    specs = (row.spec for row in layer_names.table(network.model))
    return next(spec.channels for spec in specs if spec.name == layer)
