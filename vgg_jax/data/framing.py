"""Which part of a picture a network is shown, and how large: the paper's section 3.1.

The picture is scaled isotropically, so that its smaller side has S pixels, and a square
is cut out of it: at the centre, or, in training, anywhere, with S anywhere in a range.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from vgg_jax.data import pictures

_BILINEAR = PIL.Image.Resampling.BILINEAR


class Frame(NamedTuple):
    """A square of a scaled picture.

    Attributes:
        scale: pixels of the picture's smaller side, once it is scaled.
        size: side of the square in pixels, at most `scale`.
        across, down: where the square lies, from 0 (left, top) to 1 (right, bottom).
    """

    scale: int
    size: int
    across: float = 0.5
    down: float = 0.5

    @property
    def is_central(self) -> bool:
        """Whether the square lies at the centre."""
        return self.across == self.down == 0.5

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Returns left, top, right and bottom of the square in an unscaled picture.

        >>> Frame(scale=2, size=2).box(8, 4)
        (2.0, 0.0, 6.0, 4.0)
        """
        sides = (width, height)
        scaled = pictures.scaled_size(width, height, self.scale)
        places = (self.across, self.down)
        first = [
            pictures.centred(x, self.size)
            if place == 0.5
            else max(0, math.ceil(place * (x - self.size + 1)) - 1)
            for place, x in zip(places, scaled, strict=True)
        ]
        left, top = (a * x / s for a, x, s in zip(first, sides, scaled, strict=True))
        across, down = (self.size * x / s for x, s in zip(sides, scaled, strict=True))
        return left, top, left + across, top + down

    def drafted(self, width: int, height: int) -> tuple[int, int]:
        """Returns the least width and height that lose nothing at this scale."""
        factor = self.scale / min(width, height)
        return math.ceil(width * factor), math.ceil(height * factor)

    def cut(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """Returns the square, bilinear, antialiased where that makes it smaller."""
        if self.is_central and self.scale == self.size:  # as predictions, to the bit
            return pictures.fit(picture, self.size)
        box = self.box(*picture.size)
        return picture.resize((self.size, self.size), _BILINEAR, box=box)


@dataclasses.dataclass(frozen=True)
class Centre:
    """The centre of every picture.

    Attributes:
        size: side of the square in pixels.
        scale: pixels of the picture's smaller side; 0: `size`.
    """

    size: int
    scale: int = 0

    def at(self, number: int) -> Frame:
        """Returns the frame of a picture, the same for all."""
        del number
        return Frame(self.scale or self.size, self.size)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A square anywhere in a picture, anew in each epoch: the paper's training.

    A pure function of seed, epoch and the number of the picture, so that a run that is
    resumed, or divided among processes, sees the same.

    Attributes:
        size: side of the square in pixels.
        scales: smaller side of the scaled picture in pixels: one number, or the least
            and the most, between which it is uniform (scale jittering).
        seed: of the run.
        epoch: from 0.

    >>> crop = RandomCrop(size=224, scales=(256, 512), seed=0, epoch=3)
    >>> crop.at(7) == crop.at(7), 256 <= crop.at(7).scale <= 512
    (True, True)
    """

    size: int
    scales: Sequence[int]
    seed: int
    epoch: int

    def at(self, number: int) -> Frame:
        """Returns the frame of the picture of this number in its split."""
        random = np.random.default_rng((self.seed, self.epoch, number))
        scale = int(random.integers(min(self.scales), max(self.scales) + 1))
        return Frame(scale, self.size, *random.random(2).tolist())


Framing = Centre | RandomCrop


def tested_at(scales: Sequence[int]) -> int:
    """Returns the one scale that a network trained at `scales` is tested at.

    The paper's section 4.1: S itself, or the middle of the range.

    >>> tested_at((256,)), tested_at((256, 512))
    (256, 384)
    """
    return (min(scales) + max(scales)) // 2
