"""Mean and standard deviation of each channel of a split."""

import numpy as np

from vgg_jax.data.in_memory import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.nn.preprocessing import Statistics

IMAGES = 10_000  # at most, evenly spaced
_CHUNK_BYTES = 8_000_000  # of pixels, summed at once
_LEAST_STD = 1.0  # grey level, for a channel that is the same everywhere


def of_split(split: Split | Streamed) -> Statistics:
    """Returns `(mean, std)` of each channel, in units of [0, 1].

    Of at most `IMAGES` images, evenly spaced. The sums are whole numbers, hence exact,
    and the same for a split in memory and on disk.

    >>> images = np.zeros((2, 1, 1, 3), np.uint8)
    >>> images[1] = 255
    >>> of_split(Split(images, np.zeros(2, np.int32)))
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    """
    count = min(IMAGES, len(split))
    index = np.arange(count) * len(split) // count
    height, width, channels = split.image_shape
    size = max(1, _CHUNK_BYTES // (height * width * channels))
    chunks = [index[i : i + size] for i in range(0, count, size)]
    sums = np.zeros((2, channels), np.uint64)
    for images, _ in split.batches(chunks):
        pixels = images.reshape(-1, channels).astype(np.uint32)
        for row, powers in zip(sums, (pixels, pixels**2), strict=True):
            row += powers.sum(0, dtype=np.uint64)
    mean, square = sums / (count * height * width)
    std = np.sqrt((square - mean**2).clip(_LEAST_STD**2))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
