"""Curves over epochs: SVG that also holds its values, for the page to show them.

The page's legend hides lines by their class, `series-0`, `series-1`, ...; its script
reads the attribute `data-points` and shows the values under the pointer.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator

from vgg_jax.runs.figures import INK, STYLE, axes_of, shorten, svg

# Okabe & Ito's palette, told apart by the colour-blind, and four more; all are visible
# on white and on black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
           "#8A63D2", "#8C6D31", "#7F7F7F", "#8DB600")  # fmt: skip
DASHES = (("-", "solid"), ("--", "dashed"), (":", "dotted"))  # matplotlib's, CSS's
_FLAT = 3  # as many times the height of the rest, and the first epochs flatten it
_MARKED = 60  # points at most that are drawn as dots


class Line(NamedTuple):
    """Values over epochs.

    Attributes:
        at: epochs.
        values: as many.
        spread: standard deviation of each value; none for a single run.
    """

    at: Sequence[float]
    values: Sequence[float]
    spread: Sequence[float] = ()


def legend(names: Sequence[str]) -> list[dict[str, str]]:
    """Returns name, colour and dash (as CSS calls it) of each line, in their order."""
    return [
        {"name": shorten(name), "colour": colour, "dash": dash[1]}
        for i, name in enumerate(names)
        for colour, dash in [_look(i)]
    ]


def _look(i: int) -> tuple[str, tuple[str, str]]:
    return COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]


def flattened(lines: Sequence[Line]) -> bool:
    """Returns whether first epochs of large values would flatten a linear axis.

    >>> flattened([Line(range(1, 31), [14.0, *np.linspace(2, 0.8, 29)])])
    True
    >>> flattened([Line(range(1, 31), np.linspace(2.2, 0.8, 30))])
    False
    """
    values = np.concatenate([line.values for line in lines])
    later = [np.asarray(line.values)[-(-len(line.values) // 10) :] for line in lines]
    later = np.concatenate(later)
    if not later.size or values.min() <= 0:
        return False
    return bool(np.ptp(values) > _FLAT * (later.max() - values.min()))


def curves(
    series: Mapping[str, Line],
    *,
    title: str,
    x: str,
    y: str,
    marks: Sequence[float] = (),
    log: bool = False,
    from_zero: bool = False,
    with_legend: bool = False,
) -> str:
    """Returns lines, one per name, and a band around those that have a spread.

    Args:
        series: its order decides colours; a line may be empty, and keeps its place.
        title: above the figure, and its accessible name.
        x, y: labels of the axes.
        marks: x values at which the plateau reduced the learning rate.
        log: whether the y axis is logarithmic.
        from_zero: whether the y axis begins at 0.
        with_legend: whether to draw a legend; pages have one of their own.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = axes_of(5.4, 3.3)
        for i, (name, line) in enumerate(series.items()):
            _draw(axes, i, name, line)
        for mark in marks:
            axes.axvline(mark, color=INK, alpha=0.6, linewidth=1, ls=":", gid="marks")
        axes.set(xlabel=x, ylabel=f"{y} (log scale)" if log else y)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
            axes.yaxis.set_minor_formatter(
                LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4))
            )
        axes.set_title(title, loc="left", fontsize=12)
        _limit(axes, list(series.values()), from_zero)
        if with_legend:
            named = zip(axes.lines, map(shorten, series), strict=False)
            axes.legend(*zip(*named, strict=True))  # "_x" is a name like others
        text = svg(figure, title)
        points = html.escape(json.dumps(_points(axes, figure.bbox.height, series)))
    text = re.sub(r'id="(series-\d+|marks)"', r'class="\1"', text)
    return text.replace("<svg", f'<svg tabindex="0" data-points="{points}"', 1)


def _draw(axes: Axes, i: int, name: str, line: Line) -> None:
    colour, (dash, _) = _look(i)
    dots = "o" if len(line.at) <= _MARKED else None
    size = 3 if len(line.at) > 1 else 7
    axes.plot(line.at, line.values, dash, color=colour, marker=dots, markersize=size,
              label=name, gid=f"series-{i}")  # fmt: skip
    if len(line.spread):
        low = np.subtract(line.values, line.spread)
        high = np.add(line.values, line.spread)
        axes.fill_between(line.at, low, high, color=colour, alpha=0.2, linewidth=0,
                          gid=f"series-{i}")  # fmt: skip


def _limit(axes: Axes, lines: Sequence[Line], from_zero: bool) -> None:
    """Has whole epochs only on the x axis, also where there is one."""
    at = [epoch for line in lines for epoch in line.at]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if max(at) - min(at) < 2:
        axes.set_xlim(min(at) - 0.5, max(at) + 0.5)
    if from_zero:
        axes.set_ylim(0, 1.1 * max(max(line.values) for line in lines))


def _points(axes: Axes, height: float, series: Mapping[str, Line]) -> dict[str, Any]:
    """Returns what the page's script shows, places in units of the drawing.

    Args:
        axes: drawn.
        height: of the drawing.
        series: as `curves` gets them.
    """
    at = sorted({epoch for line in series.values() for epoch in line.at})
    to_drawing = axes.transData.transform
    box = axes.bbox
    return {
        "at": at,
        "left": [round(to_drawing((epoch, 1))[0], 1) for epoch in at],
        "top": round(height - box.y1, 1),
        "bottom": round(height - box.y0, 1),
        "series": [
            {"name": shorten(name), "colour": _look(i)[0], "values": _said(line, at)}
            for i, (name, line) in enumerate(series.items())
        ],
    }


def _said(line: Line, at: Sequence[float]) -> list[str]:
    """Returns the values as text, "" where there is none."""
    said = [f"{value:.4g}" for value in line.values]
    if len(line.spread):
        pairs = zip(said, line.spread, strict=True)
        said = [f"{text} ± {spread:.2g}" for text, spread in pairs]
    known = dict(zip(line.at, said, strict=True))
    return [known.get(epoch, "") for epoch in at]
