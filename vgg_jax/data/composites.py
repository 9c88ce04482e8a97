"""Pictures with exactly known boxes: small images pasted on windows of photographs.

CIFAR-10 has labels and no boxes. An image of it that is stretched and pasted at a
random place of a larger photograph has both. The box is that of the pasted image, not
of the outline of what it shows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from vgg_jax.data.in_memory import Split
from vgg_jax.errors import ConfigError

SIZE = 64  # height and width of a composite in pixels
STRETCH = (0.75, 1.5)  # of an image's width and of its height, each by itself
_BILINEAR = PIL.Image.Resampling.BILINEAR


class Boxed(NamedTuple):
    """Pictures, each with a label and a box.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int32 `[N]`.
        boxes: float32 `[N, 4]` (`data.boxes`).
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray


def composites(
    split: Split,
    backgrounds: Sequence[np.ndarray],
    *,
    seed: int,
    copies: int = 1,
    size: int = SIZE,
    stretch: tuple[float, float] = STRETCH,
) -> Boxed:
    """Returns composites, each a pure function of the seed and its number.

    Width and height of an image are stretched by two factors, the image is pasted where
    all of it is seen, and the background is a square window of one of the photographs,
    of any size from `size` pixels to the whole, scaled to `size`: all are uniform.

    Args:
        split: the images to paste; number i is in composite i, i + N and so on.
        backgrounds: photographs, uint8 `[H, W, 3]` of any sizes from `size` on.
        seed: of places, factors and backgrounds.
        copies: composites per image, each different.
        size: height and width of a composite in pixels.
        stretch: the least and the greatest factor.

    Raises:
        ConfigError: there is no background, or one is too small or not RGB, or a
            stretched image would not fit.

    >>> split = Split(np.zeros((2, 32, 32, 3), np.uint8), np.int32([3, 5]))
    >>> made = composites(split, [np.full((80, 90, 3), 255, np.uint8)], seed=0)
    >>> made.images.shape, made.labels.tolist(), made.boxes.shape
    ((2, 64, 64, 3), [3, 5], (2, 4))
    >>> round(float((made.images[0] == 0).mean()), 6) == round(
    ...     float(made.boxes[0, 2:].prod()), 6)
    True
    """
    _check(split.image_shape, backgrounds, size, stretch)
    count = copies * len(split)
    images = np.empty((count, size, size, 3), np.uint8)
    boxes = np.empty((count, 4), np.float32)
    photographs = list(map(PIL.Image.fromarray, backgrounds))
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        picture = _window(rng, photographs, size)
        boxes[i] = _paste(rng, picture, split.images[i % len(split)], stretch)
        images[i] = np.asarray(picture)
    return Boxed(images, np.tile(split.labels, copies), boxes)


def _check(shape, backgrounds, size, stretch) -> None:
    if not backgrounds:
        raise ConfigError("backgrounds=[]: give at least one photograph")
    for i, photograph in enumerate(backgrounds):
        fits = photograph.ndim == 3 and min(photograph.shape[:2]) >= size
        if not fits or photograph.shape[2] != 3 or photograph.dtype != np.uint8:
            raise ConfigError(
                f"background {i} is {photograph.dtype} {list(photograph.shape)}: it "
                f"must be uint8 [height, width, 3] of at least {size} pixels"
            )
    least, most = (round(factor * side) for factor in stretch for side in shape[:1])
    if not 1 <= least <= most <= size or max(shape[:2]) * stretch[1] > size:
        raise ConfigError(
            f"stretch={stretch} makes images of {shape[0]}x{shape[1]} pixels into "
            f"{least} to {most} pixels: they must fit into size={size}"
        )


def _window(rng, photographs, size) -> PIL.Image.Image:
    """Returns a random window of one of the photographs, scaled."""
    photograph = photographs[rng.integers(len(photographs))]
    side = rng.integers(size, min(photograph.size), endpoint=True)
    left, top = (rng.integers(0, s - side, endpoint=True) for s in photograph.size)
    box = (left, top, left + side, top + side)
    return photograph.resize((size, size), _BILINEAR, box=box)


def _paste(rng, picture, image, stretch) -> np.ndarray:
    """Pastes a stretched image into a picture, and returns its box."""
    whole = np.array(picture.size)
    sides = np.round(rng.uniform(*stretch, 2) * image.shape[1::-1]).astype(int)
    corner = rng.integers(0, whole - sides, endpoint=True)  # left, top
    small = PIL.Image.fromarray(image).resize(tuple(sides.tolist()), _BILINEAR)
    picture.paste(small, tuple(corner.tolist()))
    return np.concatenate([(corner + sides / 2) / whole, sides / whole])
