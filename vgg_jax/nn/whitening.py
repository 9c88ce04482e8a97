"""A first convolution that whitens the patches of the images and is not trained.

Jordan (2024), "94% on CIFAR-10 in 3.29 seconds", section 3.2, after tysam-code's
hlb-CIFAR10: the filters are the principal directions of the training patches, each
divided by its standard deviation, and their negatives.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from vgg_jax.errors import ConfigError

IMAGES = 5000  # of the training split, whose patches are used
EPSILON = 5e-4  # added to the variances
_CHUNK_BYTES = 16_000_000  # of patches held at once

Images = np.ndarray | jax.Array


def filters(batches: Iterable[Images], kernel: int) -> np.ndarray:
    """Returns a whitening kernel, float32 `[k, k, C, 2 * k * k * C]`.

    Convolved with it, the patches of these images have uncorrelated responses of unit
    variance, up to `EPSILON`, which damps directions of little variance. The second
    half of the filters are the negatives of the first half. Computed in float64 on the
    host, a few images at a time.

    Args:
        batches: at least one, each `[B, H, W, C]`, normalised as the network sees them.
        kernel: side k of the patches in pixels.

    >>> images = np.random.default_rng(0).normal(size=(8, 6, 6, 1))
    >>> kernel = filters([images], 2)
    >>> kernel.shape, bool((kernel[..., 4:] == -kernel[..., :4]).all())
    ((2, 2, 1, 8), True)
    """
    variances, directions = np.linalg.eigh(_second_moments(batches, kernel))
    scaled = directions / np.sqrt(variances + EPSILON)  # [C k k, size], by column
    scaled = scaled.reshape(-1, kernel, kernel, len(scaled)).transpose(1, 2, 0, 3)
    return np.concatenate([scaled, -scaled], -1).astype(np.float32)


def _second_moments(batches: Iterable[Images], kernel: int) -> np.ndarray:
    """Returns the mean of p p^T over all patches p, `[C k k, C k k]`, in float64."""
    total, count = 0.0, 0
    for batch in batches:
        images = np.asarray(batch, np.float32)
        height, width, channels = images.shape[1:]
        size = channels * kernel**2
        step = max(1, _CHUNK_BYTES // (height * width * size * 8))
        for i in range(0, len(images), step):
            patches = np.lib.stride_tricks.sliding_window_view(
                images[i : i + step].astype(np.float64), (kernel, kernel), axis=(1, 2)
            ).reshape(-1, size)  # [B H' W', C k k]
            total, count = total + patches.T @ patches, count + len(patches)
    return np.asarray(total) / count


def set_first(params: Mapping[str, Any], batches: Iterable[Images]) -> dict[str, Any]:
    """Returns parameters whose `conv1_1` whitens the patches of these images.

    Args:
        params: of a `VGG`; not changed.
        batches: as for `filters`.

    Raises:
        ConfigError: `conv1_1` has another number of channels than there are filters.
    """
    old = params["conv1_1"]["kernel"]
    new = filters(batches, old.shape[0])
    if new.shape != old.shape:
        raise ConfigError(
            f"whiten=True needs {new.shape[-1]} channels in the first layer, two for "
            f"each value of a patch, not {old.shape[-1]}: write variant="
            f"'conv{old.shape[0]}-{new.shape[-1]} ...'"
        )
    conv1_1 = {**params["conv1_1"], "kernel": jax.numpy.asarray(new)}
    return {**params, "conv1_1": conv1_1}
