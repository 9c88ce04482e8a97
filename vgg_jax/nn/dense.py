"""A whole network as convolutions: the head applied densely, over a map of any size.

The paper's section 3.2 and appendix B: `fc6` becomes a 7x7 convolution, the dense
layers after it 1x1 ones. An image that is larger than those of training then gets a map
of logits (or of descriptors), one for each window that the network was trained to see,
32 pixels apart for five pools.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vgg_jax.errors import ConfigError
from vgg_jax.nn import architecture, matmul
from vgg_jax.nn.architecture import LayerSpec
from vgg_jax.nn.vgg import VGG, Activations


def activation_map(
    model: VGG,
    variables: Mapping[str, Any],
    images: jax.Array,
    last: str = "fc8",
    sizes: jax.Array | None = None,
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
        sizes: int `[B, 2]`, height and width of each image, of which the rest is
            padding at the right and the bottom; None: all of them are whole. Inside
            (`class_scores` knows how far) the map is what the image alone would give:
            what the padding becomes is set to zero before every convolution.

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
    if sizes is not None:
        images = _inside(images, sizes)
    with nn.intercept_methods(_blanking(body, sizes)):
        x = model.apply(variables, images, last=body[-1].name)
    assert isinstance(x, jax.Array)
    for spec in specs[len(body) :]:
        if spec.kind == "relu":
            x = jax.nn.relu(x)
        elif spec.kind == "dense":
            x = _windowed(x, variables["params"][spec.name], spec, images, model)
    return model.logit_scale * x.astype(jnp.float32) if last == architecture.HEAD else x


def class_scores(
    model: VGG,
    variables: Mapping[str, Any],
    images: jax.Array,
    sizes: jax.Array | None = None,
) -> jax.Array:
    """Returns the logits of whole images of any size: the mean of their class maps.

    The paper's dense evaluation, section 3.2. At the size of training it is what the
    network itself returns.

    Args:
        model: the network, with a head.
        variables: its weights.
        images: float `[B, H, W, C]`, normalised.
        sizes: as for `activation_map`.

    Returns:
        float32 `[B, num_classes]`.

    Raises:
        ConfigError: the images are too small. What `sizes` says is not looked at.

    >>> model = VGG("conv3-8 |", 10, hidden=(16,))
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 6, 6, 3)))
    >>> class_scores(model, variables, jnp.zeros((2, 6, 10, 3))).shape
    (2, 10)
    """
    scores = activation_map(model, variables, images, architecture.HEAD, sizes)
    if sizes is None:
        return scores.mean((1, 2))
    lost = trained_size(model, variables) - architecture.least_size(model.variant)
    halved = (sizes - lost) // architecture.least_size(model.variant)
    halved = jnp.maximum(halved, 1)
    inside = _inside(scores, halved)
    count = halved.prod(1).astype(jnp.float32)
    return inside.sum((1, 2)) / count[:, None]


def trained_size(model: VGG, variables: Mapping[str, Any]) -> int:
    """Returns the least height and width in pixels that the head can be applied to.

    For a paper or an adaptive head that is the size of training, less what the pools
    leave over; for a compact one, that of a single pixel after the last pool.

    >>> model = VGG("conv3-8 | conv3-8 |", 10, hidden=(16,))
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 30, 30, 3)))
    >>> trained_size(model, variables)
    28
    """
    least = architecture.least_size(model.variant)
    if model.head == "compact":
        return least
    first, channels = architecture.head_input(model.layers((least, least)))
    rows = variables["params"][first]["kernel"].shape[0]
    return math.isqrt(rows // channels) * least


def _blanking(body: list[LayerSpec], sizes: jax.Array | None) -> Callable:
    """Returns what sets activations to zero outside of the images, as they pass."""
    shrunk: dict[str, int] = {}  # name of a layer -> pixels of the image per pixel
    factor = 1
    for spec in body:
        factor *= 2 if spec.kind == "pool" else 1
        if spec.kind in ("relu", "pool"):  # LRN leaves zeros as they are
            shrunk[spec.name] = factor

    def intercept(call, args, kwargs, context):
        if sizes is not None and isinstance(context.module, Activations):
            name, x = args
            if name in shrunk:
                x = _inside(x, sizes // shrunk[name])
            args = name, x
        return call(*args, **kwargs)

    return intercept


def _inside(x: jax.Array, sizes: jax.Array) -> jax.Array:
    """Returns `[B, h, w, C]` with zeros at and beyond the sizes `[B, 2]`."""
    rows = jnp.arange(x.shape[1])[None] < sizes[:, :1]  # [B, h]
    columns = jnp.arange(x.shape[2])[None] < sizes[:, 1:]  # [B, w]
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(inside, x, jnp.zeros((), x.dtype))


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
    # You may be tempted to convolve, or to sum products over offsets, which keep no
    # windows. On a CPU the first takes two to three times as long, and the second
    # copies the kernel (`benchmarks/dense_fc6.py`). D's windows take at most 98 bytes
    # per pixel of the image, where conv1_1's activations take 256.
    x = jnp.concatenate([x[:, :, j : j + width] for j in range(side)], -1)
    x = jnp.concatenate([x[:, i : i + height] for i in range(side)], -1)
    y = matmul.multiply(x, kernel, implementation=model.conv)
    return y + bias[None, None, None]
