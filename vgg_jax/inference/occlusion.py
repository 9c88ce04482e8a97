"""Occlusion: what it costs to cover a place of the image (Zeiler & Fergus, 2014)."""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.fields import check_value, count
from vgg_jax.inference import hooks, targets
from vgg_jax.interop.network import Network
from vgg_jax.nn.images import ValueRange
from vgg_jax.nn.softmax import softmax

Track = Callable[[Iterable], Iterable]  # shows how far a loop is; `iter` shows nothing


def occlusion(
    network: Network,
    images: ArrayLike,
    classes: ArrayLike | None = None,
    *,
    patch: int = 0,
    stride: int = 0,
    value_range: ValueRange | None = None,
    track: Track = iter,
) -> jax.Array:
    """Returns how much the probability of a class falls where the image is covered.

    A grey square is laid over every place in turn, as in section 4.2 of the paper; its
    colour is the mean of the network's preprocessing. A pure function of weights and
    images, but for what `track` shows.

    Args:
        network: with a head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        classes: numbers of classes, `[B]` or one for all; None: the most probable.
        patch: side of the square in pixels; 0: a quarter of the smaller side.
        stride: pixels between squares, at most `patch`; 0: a quarter of the square.
        value_range: of floating-point images (`images.network_input`).
        track: is given the rows of squares, and yields them: a progress bar.

    Returns:
        float32 `[B, H, W]`: the mean, over the squares that cover a pixel, of the
        probability of the class without a square less that with it. Negative where
        covering helps.

    Raises:
        ConfigError: a class does not exist, an argument is out of its range, or the
            images are not what was declared.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> occlusion(network, jnp.zeros((2, 8, 8, 3), "uint8"), patch=4).shape
    (2, 8, 8)
    """
    unit = hooks.unit_range(network, images, value_range)
    classes = targets.classes_of(network, unit, classes)
    height, width = unit.shape[1:3]
    patch = patch or max(1, min(height, width) // 4)
    stride = stride or max(1, patch // 4)
    check_value("patch", patch, int, count(1))
    check_value("stride", stride, int, count(1))
    if patch > min(height, width) or stride > patch:
        raise ConfigError(
            f"patch={patch} and stride={stride} leave pixels uncovered, or nothing but "
            f"the square, of an image of {height}x{width}: stride <= patch <= the side"
        )
    tops, lefts = (_places(side, patch, stride) for side in (height, width))
    falls, cover = jnp.zeros(unit.shape[:3]), jnp.zeros((height, width))
    for top in track(tops):
        fall, covered = _fall(network, unit, classes, jnp.int32(top), lefts, patch)
        falls, cover = falls + fall, cover + covered
    return falls / cover[None]


def _places(side: int, patch: int, stride: int) -> np.ndarray:
    """Returns where squares begin that cover a side, int32; the last ends at its end.

    >>> _places(10, 4, 4).tolist()
    [0, 4, 6]
    """
    last = side - patch
    return np.unique([*range(0, last, stride), last]).astype(np.int32)


@partial(jax.jit, static_argnames="patch")
def _fall(
    network: Network,
    unit: jax.Array,
    classes: jax.Array,
    top: jax.Array,
    lefts: jax.Array,
    patch: int,
) -> tuple[jax.Array, jax.Array]:
    """Covers one row of squares.

    Returns:
        Sums over the squares that cover a pixel: of the falls, `[B, H, W]`, and of the
        squares, `[H, W]`.
    """
    height, width, channels = unit.shape[1:]
    grey = jnp.asarray(network.preprocessing.mean, jnp.float32)
    grey = jnp.broadcast_to(grey, channels)[None, None, None]
    rows = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    columns = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    lefts = lefts[:, None, None]
    squares = (top <= rows) & (rows < top + patch)
    squares = squares & (lefts <= columns) & (columns < lefts + patch)  # [N, H, W]

    grey = jnp.where(squares[:, None, :, :, None], grey[None], unit[None])
    batch = jnp.concatenate([unit[None], grey])  # [1 + N, B, H, W, C]
    logits = hooks.run(network, batch.reshape(-1, *unit.shape[1:]), hooks.unchanged)
    sure = targets.scores(softmax(logits), jnp.tile(classes, len(batch)))
    sure = sure.reshape(batch.shape[:2])
    shown = squares.astype(jnp.float32)
    falls = jnp.einsum("nb,nhw->bhw", sure[:1] - sure[1:], shown)
    return falls, shown.sum(0)
