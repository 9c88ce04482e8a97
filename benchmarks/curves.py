"""Learning curves of kept runs as a picture for RESULTS.md.

    python -m benchmarks.curves results/lrn/* --out results/lrn/curves.png

Runs that differ only in their seed have one colour.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vgg_jax.errors import guarded
from vgg_jax.figures import COLOURS
from vgg_jax.record import Record


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    colours = {}
    for workdir in (path for path in options.workdirs if path.is_dir()):
        record = Record(workdir)
        name = record.name.split("seed=")[0].strip(",") or record.name
        name = name.removeprefix("model.variant=")
        first = name not in colours
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        for panel, key, scale in zip(
            panels, ("accuracy", "loss"), (100, 1), strict=True
        ):
            for split, style in (("train", ":"), ("val", "-")):
                at, values = record.column(f"{split}_{key}")
                label = name if first and split == "val" else None
                panel.plot(
                    at, [scale * v for v in values], style, color=colour, label=label
                )
    for panel, title in zip(panels, ("top-1 accuracy, %", "loss, nats"), strict=True):
        panel.set(xlabel="epoch", title=f"{title} (dotted: training)")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    guarded(main)
