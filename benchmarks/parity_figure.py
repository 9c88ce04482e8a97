"""Draws results/parity/networks.txt: the largest error of each network.

.venv/bin/python -m benchmarks.parity_figure
"""

import re
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parents[1] / "results" / "parity"
ROW = re.compile(r"(\w+ \w+) +\d+x\d+ +(\w+) .*norm (\S+) .*largest (\S+) ", re.M)
LIMIT = 1e-5
COLOURS = {"lax": "#0072B2", "auto": "#E69F00"}  # Okabe & Ito's
TITLES = ("norm of the difference / norm", "largest difference / largest value")


def main() -> None:
    """Writes networks.png."""
    rows = ROW.findall((HERE / "networks.txt").read_text())
    names = list(dict.fromkeys(name for name, *_ in rows))[::-1]
    figure = Figure((8, 0.28 * len(names) + 1.2), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, 2, sharex=True, sharey=True)):
        for conv, colour in COLOURS.items():
            points = [(float(e[i]), names.index(n)) for n, c, *e in rows if c == conv]
            label = f"conv={conv!r}"
            axes.scatter(*zip(*points, strict=True), 18, colour, label=label)
        axes.axvline(LIMIT, color="black", linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.set_title(TITLES[i], fontsize=10)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.grid(alpha=0.25)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(HERE / "networks.png", dpi=110)


if __name__ == "__main__":
    main()
