"""Grad-CAM: where a network sees its answer (Selvaraju et al., 2017)."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.inference import hooks, targets
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network
from vgg_jax.nn.images import ValueRange

_BODY_ENDS = ("adaptive_average", "flatten", "average")  # kinds of layers
_LEAST = 4  # height and width of a map that still says where


def grad_cam(
    network: Network,
    images: ArrayLike,
    classes: ArrayLike | None = None,
    *,
    layer: str = "",
    value_range: ValueRange | None = None,
) -> jax.Array:
    """Returns how much each place of a layer's map speaks for a class.

    Equations 1 and 2 of the paper: the channels of the layer, each weighted by the mean
    over space of the gradient of the class's logit, summed; below zero is zero. A pure
    function of weights and images.

    Args:
        network: with a head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        classes: numbers of classes, `[B]` or one for all; None: the most probable.
        layer: in any convention; "": `default_layer`.
        value_range: of floating-point images (`images.network_input`).

    Returns:
        float32 `[B, h, w]`, at least 0, in the size of the layer's map: in units of the
        logit, of which a map's mean is a first-order share. `jax.image.resize` lays it
        over the image.

    Raises:
        ConfigError: a class or a layer does not exist, the layer has no map, or the
            images are not what was declared.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> grad_cam(network, jnp.zeros((2, 8, 12, 3), "uint8"), layer="relu2_1").shape
    (2, 4, 6)
    """
    unit = hooks.unit_range(network, images, value_range)
    classes = targets.classes_of(network, unit, classes)
    name = map_layer(network, unit, layer)
    return _grad_cam(network, unit, classes, name)


@partial(jax.jit, static_argnames="layer")
def _grad_cam(
    network: Network, unit: jax.Array, classes: jax.Array, layer: str
) -> jax.Array:
    def score(activation: jax.Array) -> jax.Array:
        hook = lambda name, x: activation if name == layer else x
        return targets.scores(hooks.run(network, unit, hook), classes).sum()

    seen = hooks.run(network, unit, hooks.unchanged, layer)  # [B, h, w, C]
    slopes = jax.grad(score)(seen).astype(jnp.float32)
    weights = slopes.mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * seen.astype(jnp.float32)).sum(-1))


def map_layer(network: Network, unit: jax.Array, layer: str) -> str:
    """Returns our name of a layer that has a map; "": of `default_layer`.

    Raises:
        ConfigError: it does not exist, or is one of the head.
    """
    height, width, channels = unit.shape[1:]
    if not layer:
        return default_layer(network, (height, width))
    name = layer_names.resolve(network.model, layer)
    specs = network.model.layers((height, width), channels)
    kinds = [spec.kind for spec in specs]
    ends = next(i for i, kind in enumerate(kinds) if kind in _BODY_ENDS)
    if name not in {spec.name for spec in specs[:ends]}:
        raise ConfigError(
            f"layer={layer!r} is of the head, and has no map: take a layer before it, "
            f"as {default_layer(network, (height, width))}"
        )
    return name


def default_layer(network: Network, size: tuple[int, int]) -> str:
    """Returns the last ReLU of the body whose map has at least 4 pixels a side.

    At 224 pixels that is the last of all, with 14, as in the paper. At 32 pixels the
    last map has 2 a side, and says nothing of places: then it is `relu4_3`, or its
    like, with 4. The first ReLU, where the image itself is smaller.

    Args:
        network: see `Network`.
        size: height and width of the images in pixels.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("A", 10, width=0.125, head="compact"), "unit")
    >>> default_layer(network, (32, 32)), default_layer(network, (224, 224))
    ('relu4_2', 'relu5_2')
    """
    specs = [spec for spec in network.model.layers(size) if spec.kind == "relu"]
    maps = [spec.name for spec in specs if min(spec.size) >= _LEAST]
    return maps[-1] if maps else specs[0].name
