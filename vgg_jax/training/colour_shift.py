"""Shifts of the colours of training images along their principal components.

Krizhevsky et al. (2012), section 4.1, as the VGG paper has it in its section 3.1: an
object stays the same when the intensity and the colour of the light change.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class ColourShift(NamedTuple):
    """Random shifts, one per image.

    Attributes:
        strength: standard deviation of the shift along a component, as a share of that
            of the pixels along it; Krizhevsky's is 0.1.
        components: of the training images' colours, each in grey levels and as long as
            the standard deviation of the pixels along it
            (`colour_statistics.components`).

    >>> shift = ColourShift(0.1, ((50.0, 50.0, 50.0), (9.0, 0.0, -9.0)))
    >>> grey = jnp.full((2, 1, 1, 3), 128, "uint8")
    >>> shifted = shift(jax.random.key(0), grey)
    >>> shifted.shape, shifted.dtype
    ((2, 1, 1, 3), dtype('float32'))
    """

    strength: float
    components: tuple[tuple[float, ...], ...]

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Returns shifted images, float32 `[B, H, W, C]`, in grey levels, unclipped.

        Args:
            key: PRNG key.
            images: `[B, H, W, C]`, from 0 to 255.
        """
        axes = jnp.asarray(self.components, jnp.float32)  # [components, C]
        shape = (len(images), len(axes))
        amounts = self.strength * jax.random.normal(key, shape, jnp.float32)
        shifts = (amounts[:, :, None] * axes[None]).sum(1)  # [B, C]
        return images.astype(jnp.float32) + shifts[:, None, None]
