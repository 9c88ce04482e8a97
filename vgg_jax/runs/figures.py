"""The report's figures, as SVG that takes its colours from the page around it.

Text is drawn as it is, `$` and `_` included, and escaped for the page.
"""

import html
import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_BLUE, _ORANGE = "#0072B2", "#E69F00"  # Okabe & Ito's
_LONGEST = 32  # characters of a name
_TICKS = 50  # names at most along an axis of the confusion matrix
INK = "#010203"  # stands for the page's text colour
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vgg_jax",  # the same figure is the same text
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a class may be called $x$
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def shorten(name: str) -> str:
    """Returns a name that fits beside a figure: both ends of a very long one.

    >>> shorten("cat"), shorten("lr=0.1,model.width=0.5,schedule.name=constant,seed=0")
    ('cat', 'lr=0.1,model.wid…=constant,seed=0')
    """
    name = name.encode("utf-8", "replace").decode("utf-8")  # a path may be no text
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 :]}"


def svg(figure: Figure, title: str) -> str:
    """Returns the figure as an inline `<svg>` with an accessible name."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser's fonts have it
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = html.escape(title)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns an empty figure of a size in inches, and its axes."""
    # A unit of the drawing is a point: what is computed of the axes holds in the SVG.
    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    return figure, figure.add_subplot()


def bars(names: Sequence[str], values: Sequence[float], *, title: str, x: str) -> str:
    """Returns horizontal bars of shares, shown in per cent."""
    with matplotlib.rc_context(STYLE):
        figure, axes = axes_of(5.4, 1.1 + 0.24 * len(values))
        drawn = axes.barh(range(len(names)), [100 * v for v in values], color=_BLUE)
        axes.bar_label(drawn, fmt="%.1f", padding=3)
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])
        axes.set(xlabel=x, xlim=(0, 108))
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=12)
        axes.grid(axis="y", visible=False)
        return svg(figure, title)


def confusion(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Returns true class by predicted class, in per cent of the row, as a picture.

    Args:
        matrix: int `[K, K]`, counts by true and predicted class.
        names: of the classes.
    """
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = axes_of(5.4, 5.0)
        drawn = axes.imshow(share, cmap="cividis", vmin=0, vmax=100)
        figure.colorbar(drawn, label="% of the true class", shrink=0.8)
        step = -(-len(names) // _TICKS)
        ticks, short = range(0, len(names), step), list(map(shorten, names))[::step]
        axes.set_xticks(ticks, short, rotation=90, fontsize=7)
        axes.set_yticks(ticks, short, fontsize=7)
        axes.set(xlabel="predicted", ylabel="true")
        return svg(figure, "confusion matrix")


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> str:
    """Returns a reliability diagram: how often the network is right when so sure.

    Args:
        confidence: `[N]`, probability of each guess.
        right: `[N]`, 1 where the guess is right, else 0.
        bins: number of equal intervals of confidence.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    seen = counts > 0
    accuracy = np.bincount(place, right, bins)[seen] / counts[seen]
    sure = np.bincount(place, confidence, bins)[seen] / counts[seen]
    with matplotlib.rc_context(STYLE):
        figure, axes = axes_of(5.4, 3.6)
        axes.plot([0, 100], [0, 100], color=INK, alpha=0.5, ls=":", label="calibrated")
        axes.plot(100 * sure, 100 * accuracy, "o-", color=_BLUE, label="network")
        sizes = 100 * counts[seen] / counts.sum()
        axes.bar(100 * sure, sizes, 4, color=_ORANGE, alpha=0.7,
                 label="share of the images")  # fmt: skip
        axes.set(
            xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102)
        )
        axes.set_title("calibration", loc="left", fontsize=12)
        axes.legend()
        return svg(figure, "calibration")


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = 15
) -> float:
    """Returns the expected calibration error, in [0, 1] (Guo et al., 2017).

    Args as for `calibration`.

    >>> calibration_error(np.array([0.75, 0.75]), np.array([1.0, 0.0]))
    0.25
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(confidence))
