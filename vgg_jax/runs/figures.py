"""The report's figures, as SVG that takes its colours from the page around it.

Text is drawn as it is, `$` and `_` included, and escaped for the page.
"""

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

# Okabe & Ito's palette: told apart by the colour-blind, visible on white and on black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
STYLES = ("-", "--", ":", "-.")
_LONGEST = 32  # characters of a name
_INK = "#010203"  # stands for the page's text colour
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vgg_jax",  # the same figure is the same text
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a class may be called $x$
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
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


def _svg(figure: Figure, title: str) -> str:
    """Returns the figure as an inline `<svg>` with an accessible name."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser's fonts have it
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight",
                       metadata={"Date": None})  # fmt: skip
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = html.escape(title)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _axes(width: float = 6.4, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x: str,
    y: str,
    marks: Sequence[float] = (),
    log: bool = False,
    from_zero: bool = False,
) -> str:
    """Returns lines, one per name.

    Args:
        series: name -> x values and y values.
        title: above the figure, and its accessible name.
        x, y: labels of the axes.
        marks: x values at which the plateau reduced the learning rate.
        log: whether the y axis is logarithmic.
        from_zero: whether the y axis begins at 0.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        legend = []
        for i, (name, (at, values)) in enumerate(series.items()):
            (line,) = axes.plot(
                at,
                values,
                STYLES[i // len(COLOURS) % len(STYLES)],
                color=COLOURS[i % len(COLOURS)],
                marker="o" if len(at) <= 60 else None,
                markersize=3,
            )
            if len(at):
                legend.append((line, shorten(name)))
        for i, mark in enumerate(marks):
            line = axes.axvline(mark, color=_INK, alpha=0.6, linewidth=1, ls=":")
            if i == 0:
                legend.append((line, "learning rate drops"))
        axes.set(xlabel=x, ylabel=y)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title, loc="left", fontsize=12)
        if from_zero:
            top = max(max(values) for _, values in series.values())
            axes.set_ylim(0, 1.1 * top)
        if len(series) > 1 or marks:
            axes.legend(*zip(*legend, strict=True))  # "_x" is a name like others
        return _svg(figure, title)


def bars(names: Sequence[str], values: Sequence[float], *, title: str, x: str) -> str:
    """Returns horizontal bars of shares, shown in per cent."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(height=0.6 + 0.3 * len(values))
        drawn = axes.barh(
            range(len(names)), [100 * v for v in values], color=COLOURS[0]
        )
        axes.bar_label(drawn, fmt="%.1f", padding=3)
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])
        axes.set(xlabel=x, xlim=(0, 108))
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=12)
        axes.grid(axis="y", visible=False)
        return _svg(figure, title)


def confusion(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Returns true class by predicted class, in per cent of the row.

    Args:
        matrix: int `[K, K]`, counts by true and predicted class.
        names: of the classes.
    """
    names = [shorten(name) for name in names]
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _axes(6.4, 5.6)
        axes.imshow(share, cmap="cividis", vmin=0, vmax=100)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title("confusion, % of each true class", loc="left", fontsize=12)
        if len(names) <= 20:
            for (i, j), value in np.ndenumerate(share):
                if value >= 0.5:
                    colour = "#000000" if value > 60 else "#ffffff"
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center",
                              color=colour, fontsize=8)  # fmt: skip
        return _svg(figure, "confusion matrix")


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
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(5.2, 4.2)
        axes.plot([0, 100], [0, 100], color=_INK, alpha=0.5, ls=":", label="calibrated")
        axes.plot(100 * sure, 100 * accuracy, "o-", color=COLOURS[0], label="network")
        sizes = 100 * counts[seen] / counts.sum()
        axes.bar(100 * sure, sizes, 4, color=COLOURS[1], alpha=0.7,
                 label="share of the images")  # fmt: skip
        axes.set(
            xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102)
        )
        axes.set_title("calibration", loc="left", fontsize=12)
        axes.legend()
        return _svg(figure, "calibration")


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
