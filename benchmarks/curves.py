"""Draws the learning curves of runs, for docs/results.md.

    python -m benchmarks.curves results/findings/*seed=? \\
        --out results/findings/curves.png
    python -m benchmarks.curves results/blog/*seed=? --by step \\
        --out results/blog/curves.png

By epoch, it shows validation, and training as dotted lines. By step, it shows the
training batches, as a moving average over `--mean` rows of `metrics.jsonl`. Runs that
differ only in their seed share a colour.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vgg_jax.errors import RunError, guarded
from vgg_jax.runs import metric_log
from vgg_jax.runs.curves import COLOURS
from vgg_jax.runs.run_record import RunRecord

_PANELS = {"accuracy": ("top-1 accuracy, %", 100), "loss": ("loss, nats", 1)}


def by_epoch(workdir, key, mean):
    """Returns a run's lines, `(style, x, y)` each; the first one gets its name."""
    del mean
    record = RunRecord(workdir)
    return [("-", *record.column(f"val_{key}")), (":", *record.column(f"train_{key}"))]


def by_step(workdir, key, mean):
    """Returns a run's line, as `by_epoch` does."""
    rows = [row for row in metric_log.read(workdir) if row["kind"] == "step"]
    if not rows:
        raise RunError(f"{workdir} has no rows of steps in metrics.jsonl")
    mean = max(1, min(mean, len(rows)))
    window = np.ones(mean) / mean
    columns = ([row[name] for row in rows] for name in ("step", key))
    return [("-", *(np.convolve(column, window, "valid") for column in columns))]


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
    parser.add_argument(
        "--mean", type=int, default=10, help="rows to average, with --by step"
    )
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    options = parser.parse_args()
    lines, content = KINDS[options.by]
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
        panel.set(xlabel=options.by, title=f"{_PANELS[key][0]} ({content})")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels["accuracy"].legend(frameon=False, fontsize=8)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    guarded(main)
