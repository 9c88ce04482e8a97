"""HTML pages that hold everything they show, from the templates beside this file.

Jinja escapes every value, so no name of a class, a run or a field is read as HTML. The
figures, which escape their own text, are the one exception.
"""

import base64
import io
import os
import urllib.parse
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
import PIL.Image


def render(template: str, **values: Any) -> str:
    """Returns a whole page, good on a phone and in dark mode.

    Args:
        template: name of a file in `templates`.
        **values: what its names stand for; "title" is every page's.
    """
    text = _ENVIRONMENT.get_template(template).render(values)
    return text.encode("utf-8", "replace").decode("utf-8")  # a path may be no text


def png(pixels: np.ndarray) -> str:
    """Returns a picture as a `data:` address, which the page itself holds.

    Args:
        pixels: uint8 `[H, W, C]`, with 1, 3 or 4 channels (the last: opacity).
    """
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def heat(strength: np.ndarray) -> str:
    """Returns a heat map to lay over a picture, transparent where it is weak.

    Args:
        strength: uint8 `[h, w]`.
    """
    colours = matplotlib.colormaps["turbo"](strength)
    colours[..., 3] = 0.75 * (strength / 255) ** 1.5
    return png(np.round(255 * colours).astype(np.uint8))


def link(file: Path, directory: Path) -> str:
    """Returns the address of a file, relative to a directory; "" if it is not there."""
    if not file.exists():
        return ""
    path = os.path.relpath(file.absolute(), directory.absolute())
    return urllib.parse.quote(os.fsencode(path))


def duration(seconds: float) -> str:
    """Returns a duration as text.

    >>> duration(3_900), duration(303), duration(57)
    ('1 h 05 min', '5 min 03 s', '57 s')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"png": png, "heat": heat}
