"""Losses that look at images through a network, as pure functions.

Gatys, Ecker & Bethge (2016), "Image style transfer using convolutional neural
networks"; Johnson, Alahi & Fei-Fei (2016), "Perceptual losses for real-time style
transfer and super-resolution". Each returns one value per image, has finite gradients
everywhere, at equal images too, and refuses a network with random weights.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.inference.features import LAST_OF_STAGES, check_loaded, features
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network, check_network
from vgg_jax.nn.images import ValueRange

GATYS_CONTENT = ("conv4_2",)
GATYS_STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
JOHNSON_CONTENT = ("relu3_3",)
JOHNSON_STYLE = LAST_OF_STAGES[:4]

Features = Mapping[str, jax.Array]  # of `features`: layer -> [B, H, W, C]


def gram(activation: jax.Array) -> jax.Array:
    """Returns the Gram matrix of the channels, divided by the number of values.

    Equation 3 of Johnson et al.: products of channels, summed over pixels, over
    `H W C`.

    Args:
        activation: `[B, H, W, C]`.

    Returns:
        float32 `[B, C, C]`.

    >>> gram(jnp.full((1, 2, 2, 3), 3.0))[0, 0].tolist()  # 4 * 3 * 3 / 12
    [3.0, 3.0, 3.0]
    """
    if activation.ndim != 4:
        raise ConfigError(
            f"an activation of shape {list(activation.shape)} has no pixels to sum over"
        )
    batch, height, width, channels = activation.shape
    flat = activation.reshape(batch, height * width, channels)
    products = jnp.einsum(
        "bpc,bpd->bcd", flat, flat, preferred_element_type=jnp.float32
    )
    return products / (height * width * channels)


def content_loss(found: Features, target: Features) -> jax.Array:
    """Returns the mean squared difference of activations, summed over layers.

    Johnson's feature reconstruction loss (equation 2). Gatys' content loss (equation
    1) is `H W C / 2` times as much per layer.

    Args:
        found: activations of the images, as `features` returns them.
        target: activations that they should have, of one image or of as many.

    Returns:
        float32 `[B]`.

    >>> found = {"relu1_1": jnp.ones((1, 2, 2, 3))}
    >>> content_loss(found, {"relu1_1": jnp.zeros((1, 2, 2, 3))}).tolist()
    [1.0]
    """
    return _sum_over_layers(found, target, lambda activation: activation, jnp.mean)


def style_loss(found: Features, target: Features) -> jax.Array:
    """Returns the squared Frobenius distance of Gram matrices, summed over layers.

    Johnson's style reconstruction loss (equation 4). Gatys' (equations 4 and 5, weights
    1/5 for five layers) is a twentieth of it.

    Args:
        found: activations of the images, as `features` returns them.
        target: activations whose style they should have; their size may differ.

    Returns:
        float32 `[B]`.

    >>> found = {"relu1_1": jnp.ones((1, 2, 2, 3))}
    >>> style_loss(found, {"relu1_1": jnp.zeros((1, 4, 4, 3))}).round(3).tolist()
    [1.0]
    """
    return _sum_over_layers(found, target, gram, jnp.sum)


def _sum_over_layers(found, target, view, reduce) -> jax.Array:
    if found.keys() != target.keys():
        raise ConfigError(
            f"activations of {', '.join(found)} and a target of {', '.join(target)}: "
            "both must be of the same layers"
        )
    total = jnp.zeros(())
    for layer, activation in found.items():
        seen, wanted = view(activation), view(target[layer])
        if seen.shape[1:] != wanted.shape[1:] or len(wanted) not in (1, len(seen)):
            raise ConfigError(
                f"{layer} is {list(seen.shape)}, its target {list(wanted.shape)}: the "
                "images must be of one size, and the target of one image or of as many"
            )
        difference = seen.astype(jnp.float32) - wanted.astype(jnp.float32)
        total = total + reduce(jnp.square(difference), tuple(range(1, seen.ndim)))
    return total


def perceptual_loss(
    network: Network,
    images: ArrayLike,
    targets: ArrayLike,
    *,
    value_range: ValueRange | None = None,
    content: Sequence[str] = JOHNSON_CONTENT,
    style: Sequence[str] = (),
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    random_weights: bool = False,
) -> jax.Array:
    """Returns how different images are to a network: Johnson's perceptual loss.

    Args:
        network: as `load` returns it; Johnson's is ImageNet's VGG-16.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        targets: likewise, of the same size; nothing is differentiated through them.
        value_range: of floating-point images, both.
        content: layers whose activations are compared.
        style: layers whose Gram matrices are compared: `JOHNSON_STYLE`, or none.
        content_weight: multiplies `content_loss`.
        style_weight: multiplies `style_loss`.
        random_weights: whether a network that was not loaded may be used.

    Returns:
        float32 `[B]`, 0 where images and targets agree.

    Raises:
        ConfigError: as `features`; or the network has random weights.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", head="compact"), "imagenet")
    >>> x = jnp.zeros((1, 8, 8, 3), "uint8")
    >>> perceptual_loss(network, x, x, content=["relu2_1"])
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: the weights of conv1_1 (2 of 2 layers) are random: \
load a trained network, or say random_weights=True
    """
    check_network(network)
    for names in filter(len, (content, style)):
        layer_names.resolve_all(network.model, names)
    layers = (*content, *style)
    check_loaded(network, layers, allowed=random_weights)
    found = features(network, images, layers, value_range=value_range)
    wanted = features(
        network, targets, layers, value_range=value_range, stop_gradient=True
    )
    pick = lambda activations, names: {name: activations[name] for name in names}
    loss = content_weight * content_loss(pick(found, content), pick(wanted, content))
    if style:
        look = style_loss(pick(found, style), pick(wanted, style))
        loss = loss + style_weight * look
    return loss


def total_variation(images: jax.Array) -> jax.Array:
    """Returns the sum of absolute differences of neighbouring pixels.

    Equivalent to `tf.image.total_variation`.

    Args:
        images: `[B, H, W, C]`, floating point, in any range.

    Returns:
        `[B]` in the type of the images.

    Raises:
        ConfigError: the images have another shape or type.

    >>> total_variation(jnp.eye(2)[None, :, :, None]).tolist()
    [4.0]
    """
    if jnp.ndim(images) != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ConfigError(
            f"images of shape {list(images.shape)} and type {images.dtype} must be "
            "[B, height, width, channels] in floating point: differences of uint8 wrap"
        )
    rows, columns = (_distance(jnp.diff(images, axis=axis)) for axis in (1, 2))
    return rows + columns


def _distance(difference: jax.Array) -> jax.Array:
    """Sums absolute values per image; the slope at 0 is 0, where `jnp.abs` has 1."""
    sign = lax.stop_gradient(jnp.sign(difference))
    return (difference * sign).sum((1, 2, 3))
