"""From pixels to what a network sees: size, range, statistics."""

import jax
import jax.numpy as jnp

from vgg_jax.errors import ConfigError, choose

# Mean and standard deviation of each channel, in units of [0, 1]. One number stands for
# all channels.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
STATISTICS: dict[str, Statistics] = {
    "unit": ((0.0,), (1.0,)),  # [0, 1], as the blog has it
    "symmetric": ((0.5,), (0.5,)),  # [-1, 1]
    "cifar10": (  # the 50,000 training images
        (125.30691805 / 255, 122.95039414 / 255, 113.86538318 / 255),
        (62.99321928 / 255, 62.08870764 / 255, 66.70489964 / 255),
    ),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's
}


def normalize(images: jax.Array, statistics: str | Statistics) -> jax.Array:
    """Subtracts the mean of each channel and divides by its standard deviation.

    Args:
        images: `[B, H, W, C]`, uint8, or floats from 0 to 255.
        statistics: one of `STATISTICS`, or the mean and the standard deviation of each
            channel in units of [0, 1].

    Returns:
        float32 `[B, H, W, C]`.

    Raises:
        ConfigError: the name is unknown, or its statistics are for another number of
            channels.

    >>> normalize(jnp.full((1, 1, 1, 3), 255), "symmetric").tolist()
    [[[[1.0, 1.0, 1.0]]]]
    """
    table = statistics
    if isinstance(statistics, str):
        table = choose(STATISTICS, statistics, "normalize")
    mean, std = (jnp.asarray(row, jnp.float32)[None, None, None] for row in table)
    if mean.size not in (1, images.shape[-1]):
        raise ConfigError(
            f"normalize={statistics!r} is for {mean.size} channels, the images "
            f"have {images.shape[-1]}: use 'unit' or 'symmetric'"
        )
    return (images.astype(jnp.float32) / 255 - mean) / std


def resize(images: jax.Array, size: int) -> jax.Array:
    """Scales images to `size` by `size` pixels.

    Bilinear without antialiasing, equivalent to `tf.image.resize`. Meant to enlarge: in
    training, images that are larger than `size` or not square were scaled and cropped
    when they were decoded (`data.pictures.fit`).

    Args:
        images: `[B, H, W, C]`, uint8 or float.
        size: height and width in pixels; 0, or the size that the images have, leaves
            them unchanged, dtype included.

    Returns:
        float32 `[B, size, size, C]` in the range of `images`.

    >>> resize(jnp.zeros((2, 32, 32, 3)), 64).shape
    (2, 64, 64, 3)
    """
    batch, height, width, channels = images.shape
    if size in (0, height) and size in (0, width):
        return images
    shape = (batch, size, size, channels)
    images = images.astype(jnp.float32)
    return jax.image.resize(images, shape, "bilinear", antialias=False)
