"""Mean, deviation and principal components of the colours of a split, by one pass."""

import hashlib
from typing import NamedTuple

import numpy as np

from vgg_jax.data import decoded_cache
from vgg_jax.data.datasets import Dataset
from vgg_jax.data.in_memory import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.nn.preprocessing import Statistics

IMAGES = 10_000  # at most, evenly spaced
_CHUNK_BYTES = 8_000_000  # of pixels, summed at once
_LEAST_STD = 1.0  # grey level, for a channel that is the same everywhere

# One row per component: a direction in grey levels, as long as the standard deviation
# of the pixels along it, the longest first.
Components = tuple[tuple[float, ...], ...]


class Moments(NamedTuple):
    """Sums over pixels, whole numbers and hence exact: the same however they are read.

    Attributes:
        pixels: their number.
        sums: of each channel in grey levels, uint64 `[C]`.
        products: of each pair of channels, uint64 `[C, C]`.
    """

    pixels: np.ndarray
    sums: np.ndarray
    products: np.ndarray


def of_training(dataset: Dataset) -> Moments:
    """Returns the moments of the training images (`of_split`).

    Those of a streamed set are kept on disk, by its files and which examples it has, so
    that a run that is resumed need not decode ten thousand pictures first.
    """
    train = dataset.train
    if not isinstance(train, Streamed) or "train" not in dataset.digests:
        return of_split(train)
    shown = "x".join(map(str, train.image_shape))
    framing = getattr(train.readers[0].framing, "scale", 0)
    parts = [dataset.digests["train"], *(reader.source for reader in train.readers)]
    digest = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape"))
    name = f"colours-{digest.hexdigest()[:32]}-{shown}-{framing}-{IMAGES}"
    if kept := decoded_cache.load(name):
        return Moments(**kept)
    moments = of_split(train)
    decoded_cache.store(name, moments._asdict())
    return moments


def of_split(split: Split | Streamed) -> Moments:
    """Returns the moments of at most `IMAGES` images of a split, evenly spaced.

    >>> images = np.zeros((2, 1, 1, 3), np.uint8)
    >>> images[1] = 255
    >>> moments = of_split(Split(images, np.zeros(2, np.int32)))
    >>> statistics(moments)
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> [round(x, 1) for x in components(moments)[0]]
    [127.5, 127.5, 127.5]
    """
    count = min(IMAGES, len(split))
    index = np.arange(count) * len(split) // count
    height, width, channels = split.image_shape
    size = max(1, _CHUNK_BYTES // (height * width * channels))
    chunks = [index[i : i + size] for i in range(0, count, size)]
    sums = np.zeros(channels, np.uint64)
    products = np.zeros((channels, channels), np.uint64)
    for images, _ in split.batches(chunks):
        pixels = images.reshape(-1, channels).astype(np.float64)
        sums += pixels.sum(0).astype(np.uint64)
        products += (pixels.T @ pixels).astype(np.uint64)
    return Moments(np.asarray(count * height * width), sums, products)


def statistics(moments: Moments) -> Statistics:
    """Returns `(mean, std)` of each channel, in units of [0, 1]."""
    mean = moments.sums / moments.pixels
    square = np.diag(moments.products) / moments.pixels
    std = np.sqrt((square - mean**2).clip(_LEAST_STD**2))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def components(moments: Moments) -> Components:
    """Returns the principal components of the colours, in grey levels.

    Each points where its largest channel grows, so that they are the same everywhere.
    """
    mean = moments.sums / moments.pixels
    covariance = moments.products / moments.pixels - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    rows = (directions * np.sqrt(variances.clip(0))).T[::-1]
    largest = np.abs(rows).argmax(1)
    signs = np.where(rows[np.arange(len(rows)), largest] < 0, -1.0, 1.0)
    return tuple(map(tuple, (rows * signs[:, None] + 0.0).tolist()))
