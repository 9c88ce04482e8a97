"""The sheet of an explanation as one PNG, drawn by matplotlib."""

import io
import textwrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure

from vgg_jax.inference import sheet
from vgg_jax.inference.explain import Explanation
from vgg_jax.inference.sheet import Panel, Section

_WIDTH = 12.0  # inches
_DPI = 130
_LARGE, _SMALL, _TINY = 4, 8, 16  # panels per row: of sentences, captions, filters
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.parse_math": False,
    "figure.facecolor": "#ffffff",  # reads on any page, as it brings its own
}


def draw(found: Explanation, title: str) -> bytes:
    """Returns the sheet as a PNG of 1,560 pixels' width.

    Args:
        found: what it shows.
        title: the name of the picture.
    """
    sections = sheet.sections(found)
    heights = [2.7, *map(_height, sections)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, sum(heights)))
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
        _answer(parts[0], found, title)
        for part, section in zip(parts[1:], sections, strict=True):
            _section(part, section)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _per_row(section: Section) -> int:
    if not section.small:
        return _LARGE
    return _SMALL if section.panels[0].title else _TINY


def _height(section: Section) -> float:
    """Returns the inches that a section takes."""
    rows = -(-len(section.panels) // _per_row(section))
    row = {_LARGE: 4.6, _SMALL: 1.85, _TINY: 0.72}[_per_row(section)]
    return 0.75 + rows * row


def _answer(part: SubFigure, found: Explanation, title: str) -> None:
    best = sheet.best(found)
    part.text(0.02, 0.9, title, fontsize=15, weight="bold")
    picture, bars = part.subplots(
        1,
        2,
        width_ratios=[1, 3.2],
        gridspec_kw={"left": 0.02, "right": 0.93, "bottom": 0.05, "top": 0.83},
    )
    picture.imshow(found.picture)
    picture.axis("off")
    names, shares = zip(*best, strict=True)
    drawn = bars.barh(range(len(best)), [100 * x for x in shares], color="#3b82c4")
    bars.bar_label(drawn, [f"{100 * x:.1f}%" for x in shares], padding=4)
    bars.set_yticks(range(len(best)), names)
    bars.set(xlim=(0, 112), xticks=[])
    bars.invert_yaxis()
    bars.spines[:].set_visible(False)
    bars.tick_params(length=0)


def _section(part: SubFigure, section: Section) -> None:
    inches = _height(section)
    part.text(0.02, 1 - 0.22 / inches, section.title, fontsize=13, weight="bold")
    part.text(0.02, 1 - 0.48 / inches, section.text, color="#5c5c5c", fontsize=9)
    per_row = _per_row(section)
    rows = -(-len(section.panels) // per_row)
    grid = part.subplots(
        rows,
        per_row,
        squeeze=False,
        gridspec_kw={
            "left": 0.02,
            "right": 0.98,
            "top": 1 - (0.62 if section.small else 0.9) / inches,
            "bottom": 0.02 if section.small else 0.3 / inches,
            "hspace": 0.45 if per_row == _SMALL else 0.1,
            "wspace": 0.12,
        },
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, panel in zip(grid.flat, section.panels, strict=False):
        _panel(axes, panel, section.small)


def _panel(axes: Axes, panel: Panel, small: bool) -> None:
    height, width = panel.picture.shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(panel.picture, extent=extent)
    if panel.heat is not None:
        axes.imshow(panel.heat, extent=extent)
    axes.set_anchor("N")
    if small:
        said = f"{panel.title}\n{panel.text}".strip()
        axes.text(0, 1.04 * height, said, va="top", fontsize=8)
        return
    axes.set_title(panel.title, loc="left", fontsize=11)
    axes.text(0, 1.2 * height, textwrap.fill(panel.text, 42), va="top", fontsize=9)
    if panel.scale:
        bar = axes.inset_axes((0.0, -0.085, 1.0, 0.035))
        mapped = ScalarMappable(cmap=panel.scale.colours)
        axes.figure.colorbar(mapped, cax=bar, orientation="horizontal")
        bar.set_xticks([])
        bar.spines[:].set_visible(False)
        for at, said, side in (
            (0, panel.scale.low, "left"),
            (1, panel.scale.high, "right"),
        ):
            axes.text(at * width, 1.15 * height, said, ha=side, va="center", fontsize=8)
