"""Images made to order: with the features of an image, or to excite a channel.

Mahendran & Vedaldi (2015), "Understanding deep image representations by inverting
them"; Erhan et al. (2009) and Simonyan et al. (2014) for the maximisation. Both start
from grey noise and follow a gradient, over images that stay in [0, 1].
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from vgg_jax.fields import check_value, count, in_range, positive
from vgg_jax.inference import hooks
from vgg_jax.inference.channels import channels_of
from vgg_jax.inference.occlusion import Track
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network, check_network
from vgg_jax.nn.images import ValueRange

_ADAM = optax.scale_by_adam()
_NOISE = 0.05  # standard deviation about grey of the image at the start
_LEAST = 1e-3  # activation below which it is not made relative
_SIDE = 224  # pixels of the images of a network that does not say


class Found(NamedTuple):
    """Images that were made, and how well they are what was asked for.

    Attributes:
        images: float32 `[B, H, W, C]` in [0, 1].
        before: float32 `[B]`, of the noise at the start: the distance of its features,
            or its activation.
        after: float32 `[B]`, the same of `images`.
    """

    images: jax.Array
    before: jax.Array
    after: jax.Array


class Descent(NamedTuple):
    """How images are optimised: by Adam, whose rate falls to 0 as a cosine.

    Attributes:
        steps: number of updates.
        rate: of the first update, above 0.
        smooth: weight of the total variation, the mean squared difference of
            neighbours, at least 0.
        jitter: pixels by which the images are shifted at most, cyclically and at
            random, before each step; it keeps high frequencies out.
        seed: of the noise at the start, and of the shifts.
    """

    steps: int = 200
    rate: float = 0.05
    smooth: float = 10.0
    jitter: int = 0
    seed: int = 0

    def check(self) -> None:
        """Raises a `ConfigError` where a value is out of its range."""
        check_value("steps", self.steps, int, count(1))
        check_value("rate", self.rate, float, positive())
        check_value("smooth", self.smooth, float, in_range(0))
        check_value("jitter", self.jitter, int, count(0))


INVERT = Descent()
MAXIMISE = Descent(jitter=2)


def invert(
    network: Network,
    images: ArrayLike,
    layer: str,
    *,
    descent: Descent = INVERT,
    value_range: ValueRange | None = None,
    track: Track = iter,
) -> Found:
    """Returns images whose features in a layer are those of given images.

    Equation 1 of Mahendran & Vedaldi: the squared distance of the features over the
    squared norm of the given ones, plus total variation (their beta is 2). The images
    are clipped to their range, where they bound it by a norm.

    Args:
        network: see `Network`; it needs no head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        layer: in any convention.
        descent: how to look for them.
        value_range: of floating-point images (`images.network_input`).
        track: is given the steps, and yields them: a progress bar.

    Returns:
        Images and, as `before` and `after`, the relative distances of their features:
        0 is the same.

    Raises:
        ConfigError: the layer does not exist, an argument is out of its range, or the
            images are not what was declared.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> images = jnp.full((1, 8, 8, 3), 99, "uint8")
    >>> found = invert(network, images, "relu2_1", descent=Descent(steps=9))
    >>> bool(found.after[0] < found.before[0])
    True
    """
    name = _known(network, layer)
    unit = hooks.unit_range(network, images, value_range)
    network.check_map(unit.shape, name)
    wanted = _activation(network, unit, name)
    start = _start(unit.shape, descent)
    made = _descend(network, start, wanted, _distance, name, descent, track)
    value = lambda x: _distance(_activation(network, x, name), wanted)
    return Found(made, value(start), value(made))


def maximise(
    network: Network,
    layer: str,
    channel: int,
    *,
    size: int = 0,
    images: int = 1,
    descent: Descent = MAXIMISE,
    track: Track = iter,
) -> Found:
    """Returns images that excite a channel: what it looks for.

    The mean activation of the channel is made large as a share of what it is, so that
    `smooth` means the same for every channel.

    Args:
        network: see `Network`.
        layer: in any convention; "fc8" for a class. For a ReLU, the channel of what
            enters it is excited.
        channel: its number, from 0.
        size: height and width of the images in pixels; 0: the network's.
        images: how many, each from noise of its own.
        descent: how to look for them.
        track: as in `invert`.

    Returns:
        Images and, as `before` and `after`, the mean activations of the channel.

    Raises:
        ConfigError: layer or channel do not exist, or an argument is out of its range.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> found = maximise(network, "conv2_1", 3, size=8, descent=Descent(steps=9))
    >>> bool(found.after[0] > found.before[0])
    True
    """
    name = _known(network, layer)
    check_value("channel", channel, int, in_range(0, channels_of(network, name)))
    check_value("images", images, int, count(1))
    side = size or network.size or _SIDE
    shape = images, side, side, network.channels
    start, wanted = _start(shape, descent), jnp.int32(channel)
    # A ReLU that is silent at the start has no slope; what enters it has one.
    specs = [row.spec for row in layer_names.table(network.model)]
    place = [spec.name for spec in specs].index(name)
    slope = specs[place - (specs[place].kind == "relu")].name
    made = _descend(network, start, wanted, _silence, slope, descent, track)
    value = lambda x: _mean(_activation(network, x, name), wanted)
    return Found(made, value(start), value(made))


def _known(network: Network, layer: str) -> str:
    """Returns our name of a layer whose weights are there."""
    check_network(network)
    name = layer_names.resolve(network.model, layer)
    network.check_weights(name)
    return name


# What is to be made small: of the activation of a layer, `[B, ...]`, and of what is
# wanted of it, `[B]`.
_Objective = Callable[[jax.Array, jax.Array], jax.Array]


def _distance(seen: jax.Array, wanted: jax.Array) -> jax.Array:
    norm = lambda x: jnp.square(x).reshape(len(x), -1).sum(1)
    return norm(seen - wanted) / jnp.maximum(norm(wanted), 1e-12)


def _silence(seen: jax.Array, channel: jax.Array) -> jax.Array:
    mean = _mean(seen, channel)
    return -mean / lax.stop_gradient(jnp.maximum(abs(mean), _LEAST))


def _mean(seen: jax.Array, channel: jax.Array) -> jax.Array:
    return seen[..., channel].reshape(len(seen), -1).mean(1)


def _start(shape: tuple[int, ...], descent: Descent) -> jax.Array:
    noise = jax.random.normal(jax.random.key(descent.seed), shape)
    return (0.5 + _NOISE * noise).clip(0, 1)


def _descend(
    network: Network,
    start: jax.Array,
    wanted: jax.Array,
    objective: _Objective,
    layer: str,
    descent: Descent,
    track: Track,
) -> jax.Array:
    descent.check()
    shifts = jax.random.key(descent.seed + 1)
    images, state = start, _ADAM.init(start)
    for i in track(range(descent.steps)):  # XLA's own loops are slow on CPU (jax 0.12)
        key = jax.random.fold_in(shifts, i)
        rate = descent.rate * (1 + math.cos(math.pi * i / descent.steps)) / 2
        changing = images, state, jnp.float32(rate), key
        images, state = _step(network, changing, wanted, objective, layer, descent)
    return images


@partial(jax.jit, static_argnames="layer")
def _activation(network: Network, unit: jax.Array, layer: str) -> jax.Array:
    return hooks.run(network, unit, hooks.unchanged, layer).astype(jnp.float32)


@partial(jax.jit, static_argnames=("objective", "layer", "descent"))
def _step(
    network: Network,
    changing: tuple[jax.Array, Any, jax.Array, jax.Array],
    wanted: jax.Array,
    objective: _Objective,
    layer: str,
    descent: Descent,
) -> tuple[jax.Array, Any]:
    images, state, rate, key = changing
    reach = descent.jitter
    shift = jax.random.randint(key, (2,), -reach, reach + 1)

    def loss(images: jax.Array) -> jax.Array:
        shifted = jnp.roll(images, shift, (1, 2)) if reach else images
        seen = _activation(network, shifted, layer)
        return (objective(seen, wanted) + descent.smooth * _roughness(images)).sum()

    slopes = jax.grad(loss)(images)
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to whole numbers
        update, state = _ADAM.update(slopes, state)
    return (images - rate * update).clip(0, 1), state  # pyright: ignore


def _roughness(images: jax.Array) -> jax.Array:
    """Returns the mean squared difference of neighbours, `[B]`."""
    mean = lambda axis: jnp.square(jnp.diff(images, axis=axis)).mean((1, 2, 3))
    return mean(1) + mean(2)
