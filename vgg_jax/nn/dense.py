"""A whole network as convolutions: the head applied densely, over a map of any size.

The paper's section 3.2 and appendix B: `fc6` becomes a 7x7 convolution, the dense
layers after it 1x1 ones. An image that is larger than those of training then gets a map
of logits (or of descriptors), one for each window that the network was trained to see,
32 pixels apart for five pools.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vgg_jax.errors import ConfigError
from vgg_jax.nn import architecture
from vgg_jax.nn.architecture import LayerSpec
from vgg_jax.nn.vgg import VGG


def activation_map(
    model: VGG, variables: Mapping[str, Any], images: jax.Array, last: str = "fc8"
) -> jax.Array:
    """Returns the activation of a layer as a map, whatever the size of the images.

    Layers before the head are as they always are. For the "paper" and the "adaptive"
    head, which is the paper's here, `fc6` sees windows of the size that it was trained
    on. For the "compact" head `fc8` sees single pixels, and the mean of its map is the
    ordinary logits.

    Args:
        model: the network.
        variables: its weights.
        images: float `[B, H, W, C]`, normalised.
        last: the layer, by our name; nothing after it is computed.

    Returns:
        `[B, h, w, features]` in the dtype of the model; logits are float32.

    Raises:
        ConfigError: the images are too small, or there is no such layer, or it is what
            the head begins with: averaging, or flattening.

    >>> model = VGG("conv3-8 |", 10, hidden=(16,))
    >>> init = jax.jit(model.init)
    >>> variables = init(jax.random.key(0), jnp.zeros((1, 6, 6, 3)))
    >>> activation_map(model, variables, jnp.zeros((1, 6, 10, 3))).shape
    (1, 1, 3, 10)
    """
    _, height, width, channels = images.shape
    specs = model.layers((height, width), channels, last)
    in_body = lambda spec: spec.kind not in architecture.HEAD_BEGINS
    if not in_body(specs[-1]):
        raise ConfigError(f"last={last!r} has no map: name a layer before or after it")
    body = list(itertools.takewhile(in_body, specs))
    x = model.apply(variables, images, last=body[-1].name)
    assert isinstance(x, jax.Array)
    for spec in specs[len(body) :]:
        if spec.kind == "relu":
            x = jax.nn.relu(x)
        elif spec.kind == "dense":
            x = _windowed(x, variables["params"][spec.name], spec, images, model)
    return model.logit_scale * x.astype(jnp.float32) if last == architecture.HEAD else x


def _windowed(
    x: jax.Array,
    params: Mapping[str, jax.Array],
    spec: LayerSpec,
    images: jax.Array,
    model: VGG,
) -> jax.Array:
    """Applies a dense layer to every window of the size that its kernel is for."""
    kernel, bias = (params[k].astype(model.dtype) for k in ("kernel", "bias"))
    side = math.isqrt(kernel.shape[0] // x.shape[-1])
    if side * side * x.shape[-1] != kernel.shape[0]:
        raise ConfigError(
            f"{spec.name} has {kernel.shape[0]} inputs, which are no square map of "
            f"{x.shape[-1]} channels: it cannot be applied densely"
        )
    height, width = (length - side + 1 for length in x.shape[1:3])
    if min(height, width) < 1:
        least = side * architecture.least_size(model.variant)
        raise ConfigError(
            f"images of {images.shape[1]}x{images.shape[2]} give maps of "
            f"{x.shape[1]}x{x.shape[2]}, smaller than the {side}x{side} that "
            f"{spec.name} sees: they need at least {least}x{least}"
        )
    parts = [
        x[:, i : i + height, j : j + width] for i in range(side) for j in range(side)
    ]
    return jnp.concatenate(parts, -1) @ kernel + bias[None, None, None]
