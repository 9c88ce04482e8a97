"""The paper's random crop of a scaled picture, for images that are in memory.

`data.framing` does the same to pictures that are decoded from disk, one by one; here it
is done to a batch, inside `jax.jit`, from a key.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def random(
    key: jax.Array, images: jax.Array, scales: Sequence[int], size: int
) -> jax.Array:
    """Scales each image to a side of its own and cuts a square out at a random place.

    Args:
        key: PRNG key.
        images: `[B, H, W, C]`, any range.
        scales: pixels of the smaller side, once scaled: one number, or the least and
            the most, between which it is uniform.
        size: side of the square in pixels.

    Returns:
        float32 `[B, size, size, C]`.
    """
    scale, place = drawn(key, len(images), scales)
    return cut(images, scale, size, place)


def drawn(
    key: jax.Array, count: int, scales: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """Returns random scales, int32 `[count]`, and places, float32 `[count, 2]`.

    Args:
        key: PRNG key.
        count: number of images.
        scales: as for `random`.
    """
    scale_key, place_key = jax.random.split(key)
    scale = jax.random.randint(scale_key, (count,), min(scales), max(scales) + 1)
    return scale, jax.random.uniform(place_key, (count, 2))


def central(images: jax.Array, scale: int, size: int) -> jax.Array:
    """Scales images and cuts out their centres, as `framing.Centre`.

    Args:
        images: `[B, H, W, C]`, any range.
        scale: pixels of the smaller side, once scaled.
        size: side of the square in pixels.

    Returns:
        float32 `[B, size, size, C]`.

    >>> central(jnp.ones((2, 32, 40, 3)), 36, 32).shape
    (2, 32, 32, 3)
    """
    count = len(images)
    return cut(images, jnp.full(count, scale), size, jnp.full((count, 2), 0.5))


def cut(images: jax.Array, scale: jax.Array, size: int, place: jax.Array) -> jax.Array:
    """Scales images, bilinear and antialiased, and cuts out squares (`framing.Frame`).

    Args:
        images: `[B, H, W, C]`.
        scale: int `[B]`, pixels of the smaller side, once scaled.
        size: side of the square in pixels.
        place: float `[B, 2]`, where the square lies, from 0 (top, left) to 1.

    Returns:
        float32 `[B, size, size, C]`.
    """
    scaled, first = _framed(images.shape[1:3], scale, size, place)
    sides = jnp.asarray([images.shape[1:3]], jnp.float32)  # [1, 2]

    def one(image: jax.Array, factor: jax.Array, first: jax.Array) -> jax.Array:
        shape = (size, size, image.shape[-1])
        return jax.image.scale_and_translate(
            image, shape, (0, 1), factor, -first, "linear", antialias=True
        )

    return jax.vmap(one)(images.astype(jnp.float32), scaled / sides, first)


def windows(
    sides: tuple[int, ...], scale: jax.Array, size: int, place: jax.Array
) -> jax.Array:
    """Returns the parts of the images that `cut` shows, as boxes (`data.boxes`).

    Args:
        sides: height and width of the images in pixels.
        scale: as for `cut`.
        size: as for `cut`.
        place: as for `cut`.

    Returns:
        float32 `[B, 4]`, in shares of the images.

    >>> windows((40, 80), jnp.array([40]), 20, jnp.array([[0.5, 0.5]])).tolist()
    [[0.5, 0.5, 0.25, 0.5]]
    """
    scaled, first = _framed(sides, scale, size, place)
    centres, lengths = (first + size / 2) / scaled, size / scaled
    return jnp.concatenate([centres[:, ::-1], lengths[:, ::-1]], axis=1)


def _framed(
    sides: tuple[int, ...], scale: jax.Array, size: int, place: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the sides of the scaled images, and where squares begin in them."""
    whole = jnp.asarray([sides]) * scale[:, None] // min(sides)  # [B, 2]
    scaled = whole.astype(jnp.float32)
    central = jnp.round((scaled - size) / 2)  # half to even, as `pictures.centred`
    anywhere = jnp.maximum(jnp.ceil(place * (scaled - size + 1)) - 1, 0)
    return scaled, jnp.where(place == 0.5, central, anywhere)
