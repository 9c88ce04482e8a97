"""Several views of an image, whose logits are averaged."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

VIEWS = (1, 2, 6)  # numbers of views that `views` knows


def views(images: jax.Array, count: int) -> tuple[list[jax.Array], list[float]]:
    """Returns views of images for evaluation, and the weights of their logits.

    Args:
        images: `[B, H, W, C]`, normalised.
        count: 1, the image; 2, the image and its mirror image; 6, those two and both
            shifted by a pixel up and left, and down and right (edges reflected), which
            share half of the weight (Jordan, 2024).

    Returns:
        `count` arrays `[B, H, W, C]` in the dtype of `images`, and as many weights,
        which sum to 1.

    >>> shown, weights = views(jnp.arange(3.0).reshape(1, 1, 3, 1), 2)
    >>> [view.ravel().tolist() for view in shown], weights
    ([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], [0.5, 0.5])
    """
    shown = [images, images[:, :, ::-1]][:count]
    if count < 6:
        return shown, [1 / len(shown)] * len(shown)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    shifted = [padded[:, :-2, :-2], padded[:, 2:, 2:]]
    shifted += [view[:, :, ::-1] for view in shifted]
    return shown + shifted, [1 / 4] * 2 + [1 / 8] * 4


def averaged(
    logits_of: Callable[[jax.Array], Any], images: jax.Array, count: int
) -> jax.Array:
    """Returns the logits `[B, K]` of images, averaged over their views.

    Args:
        logits_of: the network, from normalised images to logits.
        images: `[B, H, W, C]`, normalised.
        count: number of views (`views`).

    >>> averaged(lambda x: x.mean((1, 2)), jnp.ones((2, 4, 4, 3)), 6).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    shown, weights = views(images, count)
    parts = [weight * logits_of(x) for x, weight in zip(shown, weights, strict=True)]
    return reduce(jnp.add, parts)
