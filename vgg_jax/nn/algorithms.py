"""Fast convolutions with three taps along an axis, and how CPUs multiply by them."""

from collections.abc import Sequence
from typing import NamedTuple

from vgg_jax.nn import winograd

Matrix = Sequence[Sequence[float]]
Factors = Sequence[Matrix]  # of a matrix: fewer operations than by their product


def transposed(factors: Factors) -> Factors:
    return tuple(tuple(zip(*matrix, strict=True)) for matrix in reversed(factors))


class Algorithm(NamedTuple):
    """A convolution along one axis, with three taps.

    Attributes:
        name: of it, in those of the handlers.
        tile: outputs of a tile.
        before: how many inputs of a tile come before its first output.
        inputs: transforms the inputs of a tile, `[products, inputs]`.
        kernel: transforms the taps, `[products, 3]`.
        outputs: transforms the products back, `[tile, products]`.
    """

    name: str
    tile: int
    before: int
    inputs: Factors
    kernel: Factors
    outputs: Factors

    @property
    def seen(self) -> int:
        """Inputs of a tile."""
        return len(self.inputs[-1][0])

    @property
    def side(self) -> int:
        """Products along one axis."""
        return len(self.kernel[0])

    @property
    def products(self) -> int:
        return self.side**2


F4 = Algorithm(
    name="f4",
    tile=4,
    before=1,
    inputs=(
        (
            (1, 0, 0, 0, 0, 0),
            (0, 1, 1, 0, 0, 0),
            (0, 1, -1, 0, 0, 0),
            (0, 0, 0, 1, 2, 0),
            (0, 0, 0, 1, -2, 0),
            (0, 0, 0, 0, 0, 1),
        ),
        (
            (4, 0, -5, 0, 1, 0),
            (0, 0, -4, 0, 1, 0),
            (0, -4, 0, 1, 0, 0),
            (0, 0, -1, 0, 1, 0),
            (0, -1, 0, 1, 0, 0),
            (0, 4, 0, -5, 0, 1),
        ),
    ),
    kernel=(winograd.F4.kernel,),
    outputs=(
        (
            (1, 1, 0, 1, 0, 0),
            (0, 0, 1, 0, 2, 0),
            (0, 1, 0, 4, 0, 0),
            (0, 0, 1, 0, 8, 1),
        ),
        (
            (1, 0, 0, 0, 0, 0),
            (0, 1, 1, 0, 0, 0),
            (0, 1, -1, 0, 0, 0),
            (0, 0, 0, 1, 1, 0),
            (0, 0, 0, 1, -1, 0),
            (0, 0, 0, 0, 0, 1),
        ),
    ),
)
# Maps of two pixels: y0 = w1 x0 + w2 x1 and y1 = w0 x0 + w1 x1, by Karatsuba's three
# products instead of four.
PAIRS = Algorithm(
    name="pairs",
    tile=2,
    before=0,
    inputs=(((1, 1), (0, 1), (1, 0)),),
    kernel=(((0, 1, 0), (0, -1, 1), (1, -1, 0)),),
    outputs=(((1, 1, 0), (1, 0, 1)),),
)
ALGORITHMS = (F4, PAIRS)


class Registers(NamedTuple):
    """How the products are laid out over the registers of a CPU.

    Attributes:
        lanes: floats of a vector.
        rows: tiles that are multiplied together.
        vectors: vectors of features that they are multiplied by.
        channels: channels whose gradients are summed together; divides `lanes`.
        tiles: tiles that a thread transforms at a time, a multiple of `rows`.
        depth: channels of a vector that are multiplied; the rest are zeros.
    """

    lanes: int
    rows: int
    vectors: int
    channels: int
    tiles: int
    depth: int

    @property
    def panel(self) -> int:
        """Features of `vectors`."""
        return self.lanes * self.vectors


REGISTERS = {
    "AVX512": Registers(lanes=16, rows=14, vectors=2, channels=8, tiles=56, depth=16),
    "AVX2": Registers(lanes=8, rows=6, vectors=2, channels=4, tiles=54, depth=8),
}
GROUP = 64  # channels whose gradients by the kernel are computed together
