"""Draws test pictures with the true box and the one that a localiser sees."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from vgg_jax.data.boxes import iou
from vgg_jax.inference.localise import central_boxes

PAGES = {"light": ("#1f2328", "#ffffff"), "dark": ("#e2e4e9", "#1e2129")}
TRUE, SEEN = "#56B4E9", "#E69F00"  # Okabe & Ito's
ROWS, COLUMNS = 2, 4


def save_pictures(localiser, made, scale, out: Path) -> None:
    """Writes `boxes-light.png` and `boxes-dark.png`.

    Args:
        localiser: of `inference.localiser`.
        made: pictures with labels and boxes, of which the first eight are drawn.
        scale: as for `central_boxes`.
        out: a directory.
    """
    first = slice(ROWS * COLUMNS)
    images, labels, true = (column[first] for column in made)
    boxes = np.asarray(central_boxes(localiser, images, labels, scale=scale))
    for page, (ink, paper) in PAGES.items():
        figure = _draw(images, true, boxes, ink, paper)
        figure.savefig(out / f"boxes-{page}.png", dpi=130)


def _draw(images, true, boxes, ink, paper) -> Figure:
    figure = Figure(figsize=(6.4, 3.9), layout="constrained", facecolor=paper)
    panels = figure.subplots(ROWS, COLUMNS).ravel()
    for panel, image, *pair in zip(panels, images, true, boxes, strict=True):
        panel.imshow(image)
        panel.set_axis_off()
        for box, colour in zip(pair, (TRUE, SEEN), strict=True):
            panel.add_patch(_rectangle(box, image.shape, colour))
        overlap = float(iou(*pair))
        panel.set_title(f"IoU {overlap:.2f}", fontsize=10, color=ink)
    lines = [Line2D([], [], color=colour, lw=2.5) for colour in (TRUE, SEEN)]
    names = ["true box", "box of the network"]
    figure.legend(
        lines, names, loc="outside lower center", ncols=2, frameon=False, labelcolor=ink
    )
    return figure


def _rectangle(box, shape, colour) -> Rectangle:
    x, y, width, height = box * np.float32([shape[1], shape[0]] * 2)
    corner = x - width / 2 - 0.5, y - height / 2 - 0.5  # pixel 0 is centred on 0
    return Rectangle(corner, width, height, fill=False, edgecolor=colour, lw=2.2)
