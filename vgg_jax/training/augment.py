"""Image transforms that run on the device, inside jit, from a key.

Training: crop (of a scaled image, or with padding), flip, shift of the colours, resize,
normalise, cutout, in that order. Evaluation: scale or resize, and normalise only.
"""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp

from vgg_jax.data.colour_statistics import Components
from vgg_jax.data.framing import tested_at
from vgg_jax.errors import choose
from vgg_jax.fields import Rule, check, field, in_range, one_of
from vgg_jax.nn.preprocessing import (
    INIT,
    OWN,
    PREPROCESSING,
    Preprocessing,
    Statistics,
    normalize,
    resize,
)
from vgg_jax.training import scaled_crop
from vgg_jax.training.colour_shift import ColourShift

CROP_MODES = {"zero": "constant", "reflect": "reflect"}
_COLOUR = 3  # number of the key for the colours, after those that are split off
FLIPS = ("none", "random", "alternating")


def random_crop(key: jax.Array, images: jax.Array, pad: int, mode: str) -> jax.Array:
    """Pads by `pad` pixels and cuts the size back out, each image at its own place.

    Args:
        key: PRNG key.
        images: `[B, H, W, C]`, any dtype.
        pad: pixels on each side.
        mode: "zero" or "reflect" (the edge pixel is not repeated).
    """
    mode = choose(CROP_MODES, mode, "crop_mode")
    _, height, width, _ = images.shape
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)
    rows = corners[:, :1] + jnp.arange(height)[None]  # [B, H]
    columns = corners[:, 1:] + jnp.arange(width)[None]  # [B, W]
    padded = jnp.take_along_axis(padded, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(padded, columns[:, None, :, None], axis=2)


def _coins(key, index):
    """A fair coin for each image number, the same whenever it is asked."""
    return jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)))(index)


def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Sets a square of `size` pixels to zero, its centre uniform over the image.

    DeVries & Taylor (2017); the square may reach over the edge.
    """
    batch, height, width, _ = images.shape
    keys = jax.random.split(key)
    inside = []
    for key, length in zip(keys, (height, width), strict=True):
        start = jax.random.randint(key, (batch, 1), 0, length) - size // 2
        at = jnp.arange(length)[None]
        inside.append((at >= start) & (at < start + size))  # [B, length]
    hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(hole, jnp.zeros((), images.dtype), images)


def _preprocessing() -> Rule:
    names = (*PREPROCESSING, OWN, INIT)
    text = f"one of: {', '.join(names)}; or a Preprocessing"
    return Rule(lambda x: isinstance(x, Preprocessing) or x in names, text)


def _scales() -> Rule:
    rising = lambda x: all(a < b for a, b in pairwise([0, *x])) and len(x) <= 2
    return Rule(rising, "one side in pixels, or the least and the most")


def _colour() -> Rule:
    return Rule(lambda x: isinstance(x, ColourShift) or 0 <= x <= 1, "in [0, 1]")


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is done to images, in training and in evaluation.

    Attributes:
        scales: pixels of an image's smaller side, once scaled, of which training sees
            a random square of `resize`: one number, or the least and the most, between
            which it is uniform; evaluation sees the centre of the middle scale. Empty:
            images are not scaled so. What is decoded from disk comes cut like that
            (`data.framing`), and `recipe.build` leaves it empty then.
        crop: padding of the random crop in pixels; 0 is off.
        crop_mode: "zero" or "reflect".
        flip: "none", "random" (a fair coin each time) or "alternating" (airbench: a
            coin in the first epoch, then every other epoch the other way round).
        colour: strength of a random shift along the principal components of the
            colours (`ColourShift`), for which `recipe.build` puts that in its place; 0
            is off.
        cutout: side of the zeroed square in pixels; 0 is off.
        resize: height and width the network sees; 0 keeps the data set's.
        normalize: one of `preprocessing.PREPROCESSING`, or its name. "data" stands for
            the statistics of the training images, "init" for the preprocessing of the
            network that a run starts from; `recipe.build` puts those in their place.

    Raises:
        ConfigError: a field is unknown or out of its range.

    >>> images = jnp.full((2, 32, 32, 3), 255, jnp.uint8)
    >>> Augment(resize=64).evaluate(images).shape
    (2, 64, 64, 3)
    """

    scales: Sequence[int] = field((), _scales())
    crop: int = field(0, in_range(0))
    crop_mode: str = field("zero", one_of(CROP_MODES))
    flip: str = field("none", one_of(FLIPS))
    colour: float | ColourShift = field(0.0, _colour())
    cutout: int = field(0, in_range(0))
    resize: int = field(0, in_range(0))
    normalize: str | Preprocessing = field("unit", _preprocessing())

    def __post_init__(self) -> None:
        check(self)

    @property
    def measured(self) -> Statistics | None:
        """The numbers to normalise with, where no name stands for them."""
        known = self.normalize
        return None if isinstance(known, str) else known.statistics

    @property
    def components(self) -> Components | None:
        """The directions in which the colours are shifted, where they are."""
        return getattr(self.colour, "components", None)

    def train(
        self,
        images: jax.Array,
        *,
        key: jax.Array,
        run_key: jax.Array,
        index: jax.Array,
        epoch: jax.Array,
    ) -> jax.Array:
        """Returns augmented, normalised images, float32 `[B, size, size, C]`.

        Args:
            images: uint8 `[B, H, W, C]`.
            key: PRNG key of this step.
            run_key: PRNG key of the whole run (for the alternating flip).
            index: int32 `[B]`, number of each image in its split.
            epoch: int32 scalar.
        """
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        if self.scales:
            images = scaled_crop.random(crop_key, images, self.scales, self.resize)
        elif self.crop:
            images = random_crop(crop_key, images, self.crop, self.crop_mode)
        if self.flip != "none":
            if self.flip == "random":
                mirror = jax.random.bernoulli(flip_key, shape=index.shape)
            else:
                mirror = _coins(run_key, index) ^ (epoch % 2 == 1)
            mirror = mirror[:, None, None, None]
            images = jnp.where(mirror, images[:, :, ::-1], images)
        if isinstance(self.colour, ColourShift):
            images = self.colour(jax.random.fold_in(key, _COLOUR), images)
        images = normalize(resize(images, self.resize), self.normalize)
        return cutout(cutout_key, images, self.cutout) if self.cutout else images

    def evaluate(self, images: jax.Array) -> jax.Array:
        """Returns normalised images, float32 `[B, size, size, C]`."""
        if self.scales:
            images = scaled_crop.central(images, tested_at(self.scales), self.resize)
        return normalize(resize(images, self.resize), self.normalize)
