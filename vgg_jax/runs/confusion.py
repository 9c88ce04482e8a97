"""Which class was taken for which, with the pictures that were kept of it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.runs.figures import shorten
from vgg_jax.runs.gallery import Gallery

_MOST = 20  # classes that a table shows
_LISTED = 20  # pairs that are listed of more classes


class Cell(NamedTuple):
    """One class taken for another, or for itself.

    Attributes:
        key: of the cell, a name of letters and digits.
        label, guess: names of the true and of the predicted class.
        images: number of test images.
        share: of the images of the true class, in [0, 1].
        shade: how dark it is drawn, in [0, 1].
        right: whether the guess is right.
        kept: what is shown of its pictures (`report.mistakes`).
        opens: whether it opens to show them, or to say that there is none.
    """

    key: str
    label: str
    guess: str
    images: int
    share: float
    shade: float
    right: bool
    kept: Sequence[Mapping[str, Any]]
    opens: bool


class Confusion(NamedTuple):
    """The confusion matrix of the test split.

    Attributes:
        names: of the classes, short.
        rows: cells by true and predicted class; none where there are many classes.
        listed: the most frequent confusions; none where there are rows.
    """

    names: list[str]
    rows: list[list[Cell]]
    listed: list[Cell]

    @property
    def opened(self) -> list[Cell]:
        """The cells that open."""
        cells = [cell for row in self.rows for cell in row]
        return [cell for cell in [*cells, *self.listed] if cell.opens]


def confusion(
    matrix: np.ndarray,
    names: Sequence[str],
    shown: Gallery | None,
    mistakes: Sequence[Mapping[str, Any]],
) -> Confusion:
    """Returns what the page shows of a confusion matrix.

    Args:
        matrix: int `[K, K]`, counts by true and predicted class.
        names: of the classes.
        shown: the gallery, if there is one.
        mistakes: what is shown of each mistake of the gallery, in its order.
    """
    kept = defaultdict(list)
    if shown:
        for place, mistake in zip(shown.mistakes, mistakes, strict=True):
            pair = int(shown.labels[place]), int(shown.guesses[place])
            kept[pair].append(mistake)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    wrong = share * (1 - np.eye(len(share)))
    shade = np.where(np.eye(len(share)) > 0, share, wrong / max(wrong.max(), 1e-9))
    short = [shorten(name) for name in names]

    def cell(i, j):
        return Cell(
            key=f"cell-{i}-{j}",
            label=short[i],
            guess=short[j],
            images=int(matrix[i, j]),
            share=float(share[i, j]),
            shade=float(shade[i, j]),
            right=i == j,
            kept=kept[i, j],
            opens=bool(shown is not None and i != j and matrix[i, j]),
        )

    if len(short) <= _MOST:
        places = range(len(short))
        return Confusion(short, [[cell(i, j) for j in places] for i in places], [])
    order = np.argsort(-matrix * (wrong > 0), axis=None, kind="stable")[:_LISTED]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    listed = [cell(int(i), int(j)) for i, j in pairs if i != j and matrix[i, j]]
    return Confusion(short, [], listed)
