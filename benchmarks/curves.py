"""Learning curves of kept runs as a picture for RESULTS.md.

    python -m benchmarks.curves results/findings/*seed=? --out results/findings/curves.png
    python -m benchmarks.curves results/blog/*seed=? --by step --out results/blog/curves.png

By epoch: validation, and training dotted. By step: the training batches, averaged over
so many rows of `metrics.jsonl` as `--mean` says. Runs that differ only in their seed
have one colour.
"""  # noqa: E501

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vgg_jax.errors import RunError, guarded
from vgg_jax.runs import metric_log as log
from vgg_jax.runs.figures import COLOURS
from vgg_jax.runs.run_record import Record

_PANELS = {"accuracy": ("top-1 accuracy, %", 100), "loss": ("loss, nats", 1)}


def by_epoch(workdir, key, mean):
    """(style, x, y) of the lines of a run; the first bears its name."""
    del mean
    record = Record(workdir)
    return [("-", *record.column(f"val_{key}")), (":", *record.column(f"train_{key}"))]


def by_step(workdir, key, mean):
    rows = [row for row in log.read(workdir) if row["kind"] == "step"]
    if not rows:
        raise RunError(f"{workdir} has no rows of steps in metrics.jsonl")
    mean = max(1, min(mean, len(rows)))
    window = np.ones(mean) / mean
    smooth = [np.convolve([r[k] for r in rows], window, "valid") for k in ("step", key)]
    return [("-", *smooth)]


KINDS = {
    "epoch": (by_epoch, "validation; dotted: training"),
    "step": (by_step, "training batches"),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", type=Path, nargs="+")
    parser.add_argument("--by", choices=KINDS, default="epoch")
    parser.add_argument("--mean", type=int, default=10, help="rows, with --by step")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines, what = KINDS[options.by]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    colours = {}
    panels = dict(zip(_PANELS, figure.subplots(1, 2), strict=True))
    for workdir in options.workdirs:
        name = workdir.name.split("seed=")[0].strip(",") or workdir.name
        new = name not in colours
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        for key, (_, scale) in _PANELS.items():
            for i, (style, x, y) in enumerate(lines(workdir, key, options.mean)):
                label = name.replace("model.variant=", "") if new and not i else None
                y = scale * np.asarray(y)
                panels[key].plot(x, y, style, color=colour, label=label)
    for key, panel in panels.items():
        panel.set(xlabel=options.by, title=f"{_PANELS[key][0]} ({what})")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels["accuracy"].legend(frameon=False, fontsize=8)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    guarded(main)
