"""Image transforms on the device, inside jit, from a key.

Training: crop with padding, flip, resize, normalise, cutout, in that order. Evaluation:
resize and normalise only.
"""

import dataclasses

import jax
import jax.numpy as jnp

from vgg_jax.errors import ConfigError, choose

# name -> (mean, standard deviation) of each channel, in units of [0, 1].
STATISTICS = {
    "unit": ((0.0,), (1.0,)),  # [0, 1], the blog's
    "symmetric": ((0.5,), (0.5,)),  # [-1, 1]
    "cifar10": (  # the 50,000 training images
        (125.30691805 / 255, 122.95039414 / 255, 113.86538318 / 255),
        (62.99321928 / 255, 62.08870764 / 255, 66.70489964 / 255),
    ),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's
}
CROP_MODES = {"zero": "constant", "reflect": "reflect"}
FLIPS = ("none", "random", "alternating")
VIEWS = (1, 2, 6)  # numbers of views that `views` knows


def normalize(images: jax.Array, statistics: str) -> jax.Array:
    """`[B, H, W, C]` in 0 ... 255 (uint8 or float) -> normalised float32."""
    table = choose(STATISTICS, statistics, "augment.normalize")
    mean, std = (jnp.asarray(row, jnp.float32) for row in table)
    if len(mean) not in (1, images.shape[-1]):
        raise ConfigError(
            f"augment.normalize={statistics!r} is for {len(mean)} channels, the images "
            f"have {images.shape[-1]}: use 'unit' or 'symmetric'"
        )
    return (images.astype(jnp.float32) / 255 - mean) / std


def resize(images: jax.Array, size: int) -> jax.Array:
    """Bilinear to `[B, size, size, C]`, float32, as `tf.image.resize` (no antialias).

    0 leaves the images as they are, and so does the size that they have.
    """
    batch, height, width, channels = images.shape
    if size in (0, height) and size in (0, width):
        return images
    shape = (batch, size, size, channels)
    images = images.astype(jnp.float32)
    return jax.image.resize(images, shape, "bilinear", antialias=False)


def random_crop(key: jax.Array, images: jax.Array, pad: int, mode: str) -> jax.Array:
    """Pads by `pad` pixels and cuts the size back out, each image at its own place.

    Args:
        key: PRNG key.
        images: `[B, H, W, C]`, any dtype.
        pad: pixels on each side.
        mode: "zero" or "reflect" (the edge pixel is not repeated).
    """
    mode = choose(CROP_MODES, mode, "augment.crop_mode")
    _, height, width, _ = images.shape
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)
    rows = corners[:, :1] + jnp.arange(height)  # [B, H]
    columns = corners[:, 1:] + jnp.arange(width)  # [B, W]
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
        at = jnp.arange(length)
        inside.append((at >= start) & (at < start + size))  # [B, length]
    hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(hole, jnp.zeros((), images.dtype), images)


def views(images: jax.Array, count: int) -> tuple[list[jax.Array], list[float]]:
    """Views of images for evaluation, and the weights of their logits.

    Args:
        images: `[B, H, W, C]`, normalised.
        count: 1, the image; 2, and its mirror image; 6, and both shifted by a pixel
            up and left, and down and right (edges reflected), half the weight
            (Jordan, 2024).
    """
    shown = [images, images[:, :, ::-1]][:count]
    if count < 6:
        return shown, [1 / len(shown)] * len(shown)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    shifted = [padded[:, :-2, :-2], padded[:, 2:, 2:]]
    shifted += [view[:, :, ::-1] for view in shifted]
    return shown + shifted, [1 / 4] * 2 + [1 / 8] * 4


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is done to images, in training and in evaluation.

    Attributes:
        crop: padding of the random crop in pixels; 0 is off.
        crop_mode: "zero" or "reflect".
        flip: "none", "random" (a fair coin each time) or "alternating" (airbench: a
            coin in the first epoch, then every other epoch the other way round).
        cutout: side of the zeroed square in pixels; 0 is off.
        resize: height and width the network sees; 0 keeps the data set's.
        normalize: one of `STATISTICS`.
    """

    crop: int = 0
    crop_mode: str = "zero"
    flip: str = "none"
    cutout: int = 0
    resize: int = 0
    normalize: str = "unit"

    def train(
        self,
        images: jax.Array,
        *,
        key: jax.Array,
        run_key: jax.Array,
        index: jax.Array,
        epoch: jax.Array,
    ) -> jax.Array:
        """Augmented, normalised images, float32 `[B, size, size, C]`.

        Args:
            images: uint8 `[B, H, W, C]`.
            key: PRNG key of this step.
            run_key: PRNG key of the whole run (for the alternating flip).
            index: int32 `[B]`, number of each image in its split.
            epoch: int32 scalar.
        """
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        if self.crop:
            images = random_crop(crop_key, images, self.crop, self.crop_mode)
        if choose(FLIPS, self.flip, "augment.flip") != "none":
            if self.flip == "random":
                mirror = jax.random.bernoulli(flip_key, shape=index.shape)
            else:
                mirror = _coins(run_key, index) ^ (epoch % 2 == 1)
            mirror = mirror[:, None, None, None]
            images = jnp.where(mirror, images[:, :, ::-1], images)
        images = self.evaluate(images)
        return cutout(cutout_key, images, self.cutout) if self.cutout else images

    def evaluate(self, images: jax.Array) -> jax.Array:
        """Normalised images, float32 `[B, size, size, C]`, nothing random."""
        return normalize(resize(images, self.resize), self.normalize)
