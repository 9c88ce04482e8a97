"""The paper's testing protocol: dense, multi-crop and multi-scale evaluation, fusion.

Section 3.2 of Simonyan & Zisserman (2014). A picture is scaled so that its smaller side
has Q pixels, for one Q or several. Densely, the dense layers are applied as
convolutions to the whole, uncropped picture and the class map is averaged over space;
with crops, the network sees a 5x5 grid of squares of its own size. Soft-max posteriors
are averaged: over the picture and its mirror image, over crops, over scales, over the
two ways, and over networks (fusion).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vgg_jax.errors import ConfigError, choose
from vgg_jax.evaluation import suitability
from vgg_jax.evaluation.metrics import Sums
from vgg_jax.evaluation.posteriors import Posteriors
from vgg_jax.evaluation.scaled_pictures import Pictures, ScaledPicture, read_ahead
from vgg_jax.evaluation.ways import PROTOCOLS
from vgg_jax.interop.network import Network

PIXELS = 3_000_000  # per batch: 60 crops of 224


class Score(NamedTuple):
    """What a network, or several together, say of pictures.

    Attributes:
        posteriors: float32 `[N, K]`, each row a distribution; uniform for a damaged
            picture.
        top1, top5: errors, shares of the pictures in [0, 1]; a damaged one is an error,
            and a tie counts against the network.
    """

    posteriors: np.ndarray
    top1: float
    top5: float


class Result(NamedTuple):
    """The scores of networks on pictures.

    Attributes:
        scores: one per network, in order.
        fusion: of all of them together; of one it is its own.
        labels: int32 `[N]`; -1 for a damaged picture.
        damaged: why a picture could not be read, by its number.
        cut: numbers of the pictures that are longer than 8:1, of which the centre was
            seen.
        programs: number of the networks' programs that were compiled.
    """

    scores: list[Score]
    fusion: Score
    labels: np.ndarray
    damaged: dict[int, str]
    cut: list[int]
    programs: int


def evaluate(
    networks: Sequence[Network],
    source: Pictures,
    *,
    protocol: str = "dense",
    scales: Sequence[int] = (),
    flip: bool = False,
    pixels: int = PIXELS,
    report: Callable[[int], None] = lambda pictures_seen: None,
) -> Result:
    """Scores networks on pictures by one of the paper's protocols, in float32.

    Batches and groups make no difference but for rounding.

    Args:
        networks: with heads, for the same classes; several are fused too.
        source: the pictures.
        protocol: "center": the centre crop; "dense"; "crops": 5x5 of them;
            "dense+crops": the mean of the two.
        scales: pixels of the smaller side of a picture (Q), each at least the size of
            training; empty: that size.
        flip: whether mirror images are seen too: 50 crops per scale, then.
        pixels: per batch, about; it bounds the memory.
        report: called with the number of pictures read so far.

    Raises:
        ConfigError: there is no such protocol, or as `suitability.check`; or a picture
            has a class or channels that the networks do not know.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 |", 10, hidden=(16,)), "unit", size=8)
    >>> photographs = [(np.zeros((12, 9, 3), np.uint8), 3)]
    >>> result = evaluate([network], photographs, scales=(8, 12), flip=True)
    >>> result.fusion.posteriors.shape, result.programs
    ((1, 10), 2)
    """
    ways = choose(PROTOCOLS, protocol, "protocol")
    size, scales = suitability.check(networks, scales, ways)
    how = {"ways": ways, "scales": len(scales), "size": size, "flip": flip}
    posteriors = Posteriors(networks, len(source), pixels=pixels, **how)
    labels = np.full(len(source), -1, np.int32)
    damaged, cut = {}, []
    for number, read in enumerate(read_ahead(source, scales)):
        report(number + 1)
        if isinstance(read, str):
            damaged[number] = read
            continue
        _check_picture(networks[0], number, read)
        labels[number] = read.label
        cut += [number] * read.is_cut
        posteriors.add(number, read.pixels)
    posteriors.finish()
    means = posteriors.means
    means[:, [*damaged]] = 1 / means.shape[-1]
    return Result(
        scores=[score(rows, labels) for rows in means],
        fusion=score(means.mean(0), labels),
        labels=labels,
        damaged=damaged,
        cut=cut,
        programs=posteriors.programs,
    )


def score(means: np.ndarray, labels: np.ndarray) -> Score:
    """Returns posteriors with their errors.

    Args:
        means: posteriors, floating point `[N, K]`.
        labels: int32 `[N]`; -1 for a damaged picture, whose posteriors are uniform.

    >>> found = score(np.array([[0.7, 0.3], [0.6, 0.4]]), np.array([0, 1]))
    >>> found.top1, found.top5
    (0.5, 0.0)
    """
    posteriors, none = means.astype(np.float32), jnp.zeros(len(labels))
    sums = Sums.of(none, jnp.asarray(posteriors), jnp.asarray(labels))
    top1, top5 = (1 - float(hits) / len(labels) for hits in (sums.top1, sums.top5))
    return Score(posteriors, top1, top5)


def _check_picture(network: Network, number: int, read: ScaledPicture) -> None:
    """Checks what only the picture itself says: its label, its channels."""
    known = network.model.num_classes
    if not 0 <= read.label < known:
        raise ConfigError(
            f"{network.source} has {known} classes, and picture {number} is of class "
            f"number {read.label}"
        )
    found, wanted = read.pixels[0].shape[-1], network.channels
    if found != wanted:
        raise ConfigError(
            f"picture {number} has {found} channels, and {network.source} is for "
            f"{wanted}: convert the pictures, or name other weights"
        )
