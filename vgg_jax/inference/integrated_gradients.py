"""Integrated gradients: a logit shared out over pixels (Sundararajan et al., 2017)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vgg_jax.fields import check_value, count
from vgg_jax.inference import hooks, targets
from vgg_jax.interop.network import Network
from vgg_jax.nn.preprocessing import ValueRange

_AT_ONCE = 16  # points on the way in one batch


class Attribution(NamedTuple):
    """What each value of an image contributes to the logit of a class.

    Attributes:
        values: float32 `[B, H, W, C]`.
        difference: float32 `[B]`, logit of the image less that of the baseline, which
            the values of an exact integral add up to.
        error: float32 `[B]`, how far their sum is from it, as a share of its size.
    """

    values: jax.Array
    difference: jax.Array
    error: jax.Array


def integrated_gradients(
    network: Network,
    images: ArrayLike,
    classes: ArrayLike | None = None,
    *,
    baseline: ArrayLike | None = None,
    steps: int = 64,
    value_range: ValueRange | None = None,
) -> Attribution:
    """Returns the gradients on the way from a baseline to the images, integrated.

    Equation 1 of the paper, by the midpoint rule: the mean gradient of the class's
    logit on the straight line, times the way. A pure function of weights and images.

    Args:
        network: with a head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        classes: numbers of classes, `[B]` or one for all; None: the most probable.
        baseline: images that say nothing, of the shape, type and range of `images`;
            None: black, as in the paper.
        steps: points on the way; more make `error` smaller.
        value_range: of floating-point images (`preprocessing.network_input`).

    Raises:
        ConfigError: a class does not exist, an argument is out of its range, or the
            images are not what was declared.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> found = integrated_gradients(network, jnp.full((1, 8, 8, 3), 99, "uint8"), 3)
    >>> bool(abs(found.values.sum() - found.difference[0]) < 1e-3)
    True
    """
    check_value("steps", steps, int, count(1))
    unit = hooks.unit_range(network, images, value_range)
    start = jnp.zeros_like(unit)
    if baseline is not None:
        start = hooks.unit_range(network, baseline, value_range)
        start = jnp.broadcast_to(start, unit.shape)
    classes = targets.classes_of(network, unit, classes)
    chunks = -(-steps // _AT_ONCE)
    points = chunks * _AT_ONCE  # at least as many as were asked for
    shares = (np.arange(points, dtype=np.float32) + 0.5) / points
    # A loop of Python: in one of XLA (jax 0.12), convolutions on CPU took 20 times as
    # long.
    total = jnp.zeros_like(unit)
    for some in shares.reshape(chunks, _AT_ONCE):
        total += _slopes(network, unit, start, classes, jnp.asarray(some))
    return _attribution(network, unit, start, classes, total / points)


@jax.jit
def _slopes(
    network: Network,
    unit: jax.Array,
    start: jax.Array,
    classes: jax.Array,
    shares: jax.Array,
) -> jax.Array:
    """Returns the sum of the gradients at some points on the way, `[B, H, W, C]`."""
    way = shares[:, None, None, None, None] * (unit - start)[None] + start[None]
    flat = way.reshape(-1, *unit.shape[1:])  # [points * B, H, W, C]
    score = lambda flat: _logits(network, flat, jnp.tile(classes, len(shares))).sum()
    return jax.grad(score)(flat).reshape(way.shape).sum(0)


@jax.jit
def _attribution(
    network: Network,
    unit: jax.Array,
    start: jax.Array,
    classes: jax.Array,
    slopes: jax.Array,
) -> Attribution:
    values = slopes * (unit - start)
    ends = _logits(network, jnp.concatenate([unit, start]), jnp.tile(classes, 2))
    difference = ends[: len(unit)] - ends[len(unit) :]
    gap = jnp.abs(values.sum((1, 2, 3)) - difference)
    return Attribution(values, difference, gap / jnp.maximum(abs(difference), 1e-12))


def _logits(network: Network, unit: jax.Array, classes: jax.Array) -> jax.Array:
    return targets.scores(hooks.run(network, unit, hooks.unchanged), classes)
