"""HTML pages that hold everything they show."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import numpy as np
import PIL.Image

_TEMPLATE = Path(__file__).parent / "page.html"


def document(title: str, body: Iterable[str]) -> str:
    """Returns a whole page, good on a phone and in dark mode.

    Args:
        title: plain text.
        body: parts of HTML.
    """
    template = Template(_TEMPLATE.read_text())
    return template.substitute(title=html.escape(title), body="\n".join(body))


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table, without a head row where all of `heads` are empty.

    >>> table(["", ""], [("lr", 0.1)])
    '<div class="scroll"><table><tr><td>lr</td><td>0.1</td></tr></table></div>'
    """
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    top = f"<tr>{head}</tr>" if any(heads) else ""
    return f'<div class="scroll"><table>{top}{body}</table></div>'


def image(pixels: np.ndarray, name: str) -> str:
    """Returns a picture that the page itself holds.

    Args:
        pixels: uint8 `[H, W, C]`, with 1 or 3 channels.
        name: what it shows, for those who cannot see it.
    """
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(name)}">'


def duration(seconds: float) -> str:
    """Returns a duration as text.

    >>> duration(3_900), duration(303)
    ('1 h 05 min', '5 min 03 s')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
