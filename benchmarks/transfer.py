"""Measures what a pre-trained network is worth on other classes with few labels.

    python -m benchmarks.transfer --workdir=runs/transfer --out=results/transfer

Pre-trains the quickstart's network on the 25,000 training images of CIFAR-10's first
five classes, then trains on 10, 50 and 500 labels of each of the other five in three
ways: everything from the pre-trained weights ("fine-tuned"), nothing but `fc8` ("linear
probe"), and from random weights ("from scratch"). The classes and the recipe were fixed
before any of it ran.

The images go the way of a user's own: they are written as folders of PNG pictures and
read by what `vgg folder` runs. A seed draws the labels, and is the run's. All three
ways have the same updates, batches, augmentation, and grid of learning rates. The rate
of a way and a number of labels is the one with the highest accuracy on held-out labels,
a fifth of them, at the end of runs on the other four fifths, averaged over the seeds; a
tie goes to the lower loss there. With that rate a run on all the labels is tested once,
on the 5,000 test images of the five classes.

The same command goes on where it was stopped and leaves finished runs alone. It ends
with `<out>/table.md` and `<out>/transfer-{light,dark}.png`.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
from matplotlib.figure import Figure
from rich.console import Console

from configs import finetune, quickstart
from vgg_jax import backend, machine
from vgg_jax.data import datasets, image_folder
from vgg_jax.errors import guarded
from vgg_jax.runs.curves import COLOURS
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.training.loop import train

FIRST, OTHER = range(5), range(5, 10)  # labels: airplane ... deer, dog ... truck
LABELS = (10, 50, 500)  # per class
RATES = (0.01, 0.03, 0.1)
SEEDS = 3
EPOCHS, BATCH = 6, 40
# Labels per class -> passes that count as one epoch, so that an epoch is long enough to
# be worth its validation. Updates in all: 120, 240, 600 (and 150, 300, 750).
PASSES = {10: 20, 50: 8, 500: 2}
_TAKEN = {"init.layers": ("conv*", "bn*")}
THEMES = {"light": ("#ffffff", "#202020"), "dark": ("#1f2129", "#e4e4e7")}
WAYS = {
    "fine-tuned": _TAKEN,
    "linear probe": _TAKEN | {"model.frozen": ("conv*", "bn*")},
    "from scratch": {"init.path": "", "init.layers": ("*",)},
}


def write_set(name, data_dir, classes, splits):
    """Writes a data set from folders of pictures, unless it is there.

    Args:
        name: of the data set.
        data_dir: TFDS directory.
        classes: names by label.
        splits: split -> images and labels.
    """
    if (data_dir / name).exists():
        return
    with tempfile.TemporaryDirectory() as directory:
        for split, (images, labels) in splits.items():
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                folder = Path(directory, split, classes[label])
                folder.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(image).save(folder / f"{i:05}.png")
        image_folder.prepare(Path(directory), name, data_dir)


def of_classes(split, labels):
    """Returns images and labels of some classes."""
    chosen = np.isin(split.labels, labels)
    return split.images[chosen], split.labels[chosen]


def drawn(images, labels, count, seed):
    """Draws `count` images of each class.

    Returns:
        "train", four fifths of them, and "held" -> images and labels.
    """
    numbers, parts = np.random.default_rng(seed), {"train": [], "held": []}
    for label in np.unique(labels):
        index = numbers.permutation(np.flatnonzero(labels == label))[:count]
        parts["train"].append(index[: count * 4 // 5])
        parts["held"].append(index[count * 4 // 5 :])
    return {
        role: (images[np.concatenate(p)], labels[np.concatenate(p)])
        for role, p in parts.items()
    }


def write_sets(data_dir):
    """Writes the data sets of all runs."""
    whole = datasets.load("cifar10", validation="none")
    first = {x: of_classes(getattr(whole, x), FIRST) for x in ("train", "test")}
    write_set("cifar10_first", data_dir, whole.classes, first)
    images, labels = of_classes(whole.train, OTHER)
    test = of_classes(whole.test, OTHER)
    for count in LABELS:
        for seed in range(SEEDS):
            splits = drawn(images, labels, count, seed) | {"test": test}
            write_set(f"other_{count}_{seed}", data_dir, whole.classes, splits)


def pretrain(workdir, data_dir, epochs):
    """Trains the network on the first five classes; returns its workdir."""
    config = quickstart.get_config()
    config.update_from_flattened_dict(
        {
            "epochs": epochs,
            "batch_size": 128,
            "lr": 0.1,
            "data.name": "cifar10_first",
            "data.data_dir": str(data_dir),
            "data.validation": "none",
        }
    )
    train(config, workdir / "pretrained")
    return workdir / "pretrained"


def settings(way, count, seed, rate, final, data_dir, path):
    """Returns the config of a run: `final` trains on all labels, another holds out."""
    config = finetune.get_config("quickstart")
    parts = ["train", "held"] if final else ["train"]
    config.update_from_flattened_dict(
        {
            "seed": seed,
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "lr": rate,
            "init.path": str(path),
            "data.name": f"other_{count}_{seed}",
            "data.data_dir": str(data_dir),
            "data.train": "+".join(parts * PASSES[count]),
            "data.validation": "none" if final else "held",
            "checkpoint.minutes": 60.0,
            **WAYS[way],
        }
    )
    return config


def run(config, workdir, test):
    """Trains, or finds trained; keeps no checkpoint."""
    train(config, workdir, Console(quiet=True), test=test)
    shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
    return RunRecord(workdir)


def measured(way, count, workdir, data_dir, path):
    """Returns the chosen rate and the test accuracies, in per cent, one per seed."""
    place = f"{way.replace(' ', '-')},labels={count}"

    def held_out(rate):
        rows = []
        for seed in range(SEEDS):
            config = settings(way, count, seed, rate, False, data_dir, path)
            name = f"{place},lr={rate},seed={seed}"
            rows.append(run(config, workdir / name, test=False).epochs[-1])
        accuracy, loss = (
            statistics.mean(row[key] for row in rows)
            for key in ("val_accuracy", "val_loss")
        )
        print(f"{place} lr {rate}: {100 * accuracy:.2f}% of the held-out labels")
        return accuracy, -loss

    rate = max(RATES, key=held_out)
    accuracies = []
    for seed in range(SEEDS):
        config = settings(way, count, seed, rate, True, data_dir, path)
        name = f"{place},test,lr={rate},seed={seed}"
        record = run(config, workdir / name, test=True)
        accuracies.append(100 * record.test_accuracy)
    shown = " ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    print(f"{place} test at lr {rate}: {shown}", flush=True)
    return rate, accuracies


def table(rows):
    """Returns the table of all ways, as Markdown."""
    lines = [
        "| labels per class | " + " | ".join(WAYS) + " |",
        "|---" * (1 + len(WAYS)) + "|",
    ]
    for count in LABELS:
        cells = []
        for way in WAYS:
            rate, accuracies = rows[way, count]
            mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
            cells.append(f"{mean:.1f} +- {spread:.1f} (lr {rate:g})")
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows, theme):
    """Returns the figure: every run a dot, a line through the means of each way."""
    paper, ink = THEMES[theme]
    figure = Figure(figsize=(4.4, 3.6), layout="constrained", facecolor=paper)
    panel = figure.subplots()
    panel.set_facecolor(paper)
    for colour, way in zip(COLOURS, WAYS, strict=False):
        runs = [rows[way, count][1] for count in LABELS]
        means = list(map(statistics.mean, runs))
        panel.plot(LABELS, means, color=colour, lw=2, label=way)
        for count, accuracies in zip(LABELS, runs, strict=True):
            panel.plot([count] * SEEDS, accuracies, "o", color=colour, ms=4)
    panel.set(xscale="log", xlabel="labels per class", ylabel="test top-1, %")
    panel.set_xticks(LABELS, list(map(str, LABELS)))
    panel.minorticks_off()
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(ink)
    panel.tick_params(colors=ink)
    for text in (panel.xaxis.label, panel.yaxis.label):
        text.set_color(ink)
    panel.legend(frameon=False, labelcolor=ink)
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--out", type=Path, required=True, help="of table and picture")
    parser.add_argument("--epochs", type=int, default=12, help="of pre-training")
    options = parser.parse_args()
    backend.configure()
    print(machine.environment())
    data_dir = (options.workdir / "data").absolute()
    write_sets(data_dir)
    path = pretrain(options.workdir, data_dir, options.epochs)
    rows = {
        (way, count): measured(way, count, options.workdir, data_dir, path)
        for count in LABELS
        for way in WAYS
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(table(rows))
    print(table(rows))
    for theme in THEMES:
        file = options.out / f"transfer-{theme}.png"
        draw(rows, theme).savefig(file, dpi=200)
        print(file)


if __name__ == "__main__":
    guarded(main)
