"""The sheet of an explanation as one HTML page that holds all it shows."""

import matplotlib
from matplotlib.colors import to_hex

from vgg_jax.inference import sheet
from vgg_jax.inference.explain import Explanation
from vgg_jax.runs import html_page

_STOPS = 9  # colours by which a scale is drawn


def page(found: Explanation, title: str) -> str:
    """Returns the page.

    Args:
        found: what it shows.
        title: the name of the picture.
    """
    return html_page.render(
        "explain.html",
        title=title,
        found=found,
        best=sheet.best(found),
        target=found.names[found.target],
        sections=sheet.sections(found),
        gradient=_gradient,
    )


def _gradient(colours: str) -> str:
    """Returns the colours of a scale, for CSS."""
    stops = (i / (_STOPS - 1) for i in range(_STOPS))
    return ", ".join(to_hex(matplotlib.colormaps[colours](stop)) for stop in stops)
