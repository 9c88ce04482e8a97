"""A first convolution that whitens the images' patches, not trained.

Jordan (2024), "94% on CIFAR-10 in 3.29 seconds", section 3.2, after tysam-code's
hlb-CIFAR10: filters are the principal directions of the training patches, each divided
by its standard deviation, and their negatives.
"""

import jax
import numpy as np

from vgg_jax.errors import ConfigError

IMAGES = 5000  # of the training split that the patches are taken from
EPSILON = 5e-4  # added to the variances


def filters(images: np.ndarray, kernel: int) -> np.ndarray:
    """Whitening kernel, float32 `[k, k, C, 2 * k * k * C]`.

    Args:
        images: `[N, H, W, C]`, normalised as the network sees them.
        kernel: side of the patches in pixels.
    """
    view = np.lib.stride_tricks.sliding_window_view
    patches = view(np.asarray(images, np.float32), (kernel, kernel), axis=(1, 2))
    count, size = np.prod(patches.shape[:3]), np.prod(patches.shape[3:])
    patches = patches.reshape(count, size).astype(np.float64)  # in the order C, k, k
    variances, directions = np.linalg.eigh(patches.T @ patches / count)
    scaled = directions / np.sqrt(variances + EPSILON)  # [C k k, size], by column
    scaled = scaled.reshape(images.shape[-1], kernel, kernel, size).transpose(
        1, 2, 0, 3
    )
    return np.concatenate([scaled, -scaled], -1).astype(np.float32)


def set_first(params, images: np.ndarray):
    """`params` with the frozen kernel of `conv1_1` made of these images.

    Raises:
        ConfigError: the layer has another number of channels than filters.
    """
    old = params["conv1_1"]["frozen_kernel"]
    new = filters(images, old.shape[0])
    if new.shape != old.shape:
        raise ConfigError(
            f"model.whiten needs {new.shape[-1]} channels in the first layer, two for "
            f"each value of a patch, not {old.shape[-1]}: write model.variant="
            f"'conv{old.shape[0]}-{new.shape[-1]} ...'"
        )
    conv1_1 = {**params["conv1_1"], "frozen_kernel": jax.numpy.asarray(new)}
    return {**params, "conv1_1": conv1_1}
