"""Descriptors of whole images, as in the paper's appendix B.

The network without its last layer is applied densely to an image at several scales.
Averaged over the map, over the image and its mirror image, and made one vector of unit
norm, its activations serve a linear classifier (`evaluation.linear`) as they are.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vgg_jax.data.pictures import scaled_size
from vgg_jax.errors import choose
from vgg_jax.fields import Rule, check_value
from vgg_jax.inference.features import check_loaded
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network
from vgg_jax.nn.dense import activation_map
from vgg_jax.nn.images import ValueRange

COMBINE = ("average", "stack")
_SCALES = Rule(lambda scales: scales and min(scales) > 0, "in pixels: (256, 384, 512)")


def descriptors(
    network: Network,
    images: ArrayLike,
    *,
    layer: str = "relu7",
    scales: Sequence[int] = (256, 384, 512),
    flip: bool = True,
    combine: str = "average",
    value_range: ValueRange | None = None,
    random_weights: bool = False,
) -> jax.Array:
    """Returns one vector of unit norm per image.

    Args:
        network: as it was loaded.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        layer: whose activation is averaged over space, in any convention; the paper's
            is relu7. Networks with a compact head have none: take relu5_3 or pool5.
        scales: each is the smaller side in pixels to which the images are scaled,
            keeping their aspect ratio: antialiased bilinear. The paper took 256 to 768
            pixels for a network that was trained on 224.
        flip: whether to average with the mirror image.
        combine: "average" of the scales, with as many values as the layer has channels,
            or "stack", with as many for each scale.
        value_range: of floating-point images (`images.network_input`).
        random_weights: whether layers may be random; if not, they are refused.

    Returns:
        float32 `[B, D]`. An image whose activations are all zero has zeros.

    Raises:
        ConfigError: a layer, a scale or `combine` is wrong; the images are not what was
            declared, or too small for the layer at one of the scales; weights are
            missing or random.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 |", 10, head="compact"), "imagenet", size=32)
    >>> images = jnp.zeros((2, 48, 64, 3), "uint8")
    >>> descriptors(network, images, layer="pool1", scales=(32, 64), combine="stack",
    ...             random_weights=True).shape
    (2, 16)
    """
    choose(COMBINE, combine, "combine")
    check_value("scales", scales, Sequence[int], _SCALES)
    check_loaded(network, (layer,), allowed=random_weights)
    last = layer_names.resolve(network.model, layer)
    seen = network.seen(images, last, value_range)
    vectors = jnp.stack([_pooled(network, seen, s, last, flip) for s in scales], 1)
    if combine == "average":
        vectors = vectors.mean(1)
    vectors = vectors.reshape(seen.shape[0], -1)
    squares = (vectors**2).sum(1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.where(squares == 0, 1, squares))


@partial(jax.jit, static_argnames=("scale", "layer", "flip"))
def _pooled(
    network: Network, images: jax.Array, scale: int, layer: str, flip: bool
) -> jax.Array:
    """Returns the average over space and mirror image at one scale, `[B, C]`."""
    images = scaled(images, scale)
    views = [images, images[:, :, ::-1]] if flip else [images]
    maps = [activation_map(network.model, network.variables, v, layer) for v in views]
    means = [view.mean((1, 2), jnp.float32) for view in maps]
    return jnp.stack(means).mean(0)


def scaled(images: jax.Array, scale: int) -> jax.Array:
    """Returns images whose smaller side is `scale` pixels, antialiased bilinear.

    Args:
        images: float `[B, H, W, C]`.
        scale: pixels of the smaller side; the aspect ratio stays.

    >>> scaled(jnp.zeros((2, 48, 64, 3)), 96).shape
    (2, 96, 128, 3)
    """
    batch, height, width, channels = images.shape
    size = scaled_size(height, width, scale)
    return jax.image.resize(images, (batch, *size, channels), "bilinear")
