"""Draws what `vgg predict` shows on a terminal, for the manual.

    python -m benchmarks.predict_picture

Writes docs/images/predict.svg.
"""

import io
import re
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console

import vgg_jax
from vgg_jax.cli.predict import draw
from vgg_jax.inference.predict import predictions
from vgg_jax.interop import zoo

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("dog", "ship", "frog")


def main():
    vgg_jax.configure()
    files = [ROOT / f"examples/pictures/{name}.png" for name in NAMES]
    network = vgg_jax.load(zoo.DEFAULT)
    rows = [
        (
            p._replace(file=p.file.name),
            [(network.class_names[i], x) for i, x in p.top(5)],
        )
        for p in predictions(network, files)
    ]
    console = Console(
        file=io.StringIO(),
        record=True,
        width=56,
        force_terminal=True,
        color_system="truecolor",
    )
    draw(console, rows)
    # Without the font that it would fetch.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
    console.save_svg(
        str(ROOT / "docs/images/predict.svg"),
        title="vgg predict examples/pictures",
        code_format=form.replace("Fira Code, ", ""),
    )


if __name__ == "__main__":
    main()
