"""Measures descriptors of the paper's appendix B on classes a network has not seen.

    python -m benchmarks.appendix_b --network runs/transfer/pretrained \\
        --out results/appendix_b

The network never saw the classes of CIFAR-10 that it has no name for; they are told
apart by a linear SVM on its descriptors, which stay as they are: at one scale, at
several, averaged or stacked. Labels are 10, 50 and 500 images of each class, others for
each seed, and C is chosen by cross-validation on them. So is the layer, at one scale;
every setting reads the test images once per seed. Prints a row per setting; writes the
numbers and two pictures of them, for a light and a dark page. Needs scikit-learn
(`vgg_jax[probe]`) and CIFAR-10.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import vgg_jax
from vgg_jax.data import datasets
from vgg_jax.errors import ConfigError, guarded
from vgg_jax.evaluation.linear import Labelled, linear_probe
from vgg_jax.inference.descriptors import descriptors
from vgg_jax.interop.network import random
from vgg_jax.runs.curves import COLOURS

COUNTS = (10, 50, 500)  # labels per class
SEEDS = 3
SCALES = (32, 48, 64)  # pixels; CIFAR-10's images have 32
BATCH = 500
# Name -> scales and how they are combined.
SETTINGS = {f"{scale} px": ((scale,), "average") for scale in SCALES}
SETTINGS |= {"averaged": (SCALES, "average"), "stacked": (SCALES, "stack")}
FIRST = next(iter(SETTINGS))


class Images(NamedTuple):
    """Images of the classes that the network has not seen.

    Attributes:
        pool: uint8 `[seeds * largest count * classes, 32, 32, 3]`.
        labels: of the pool.
        rows: one per seed -> count -> where its images are in the pool.
        test, test_labels: all test images of these classes.
    """

    pool: np.ndarray
    labels: np.ndarray
    rows: list[dict[int, np.ndarray]]
    test: np.ndarray
    test_labels: np.ndarray


def unseen(network) -> tuple[Images, list[str]]:
    """Returns the images and the names of the classes that the network lacks."""
    data = datasets.load("cifar10", validation="none", report=lambda text: None)
    names = [name for name in data.classes if name not in network.class_names]
    if len(names) < 2:
        raise ConfigError("the network has seen every class of CIFAR-10")
    classes = [data.classes.index(name) for name in names]
    chosen = _pool(data.train.labels, classes)
    held_out = np.flatnonzero(np.isin(data.test.labels, classes))
    images, labels = data.train.take(chosen.reshape(-1))
    place = np.arange(chosen.size).reshape(chosen.shape)
    rows = [{n: place[seed, :, :n].ravel() for n in COUNTS} for seed in range(SEEDS)]
    return Images(images, labels, rows, *data.test.take(held_out)), names


def _pool(labels, classes):
    """Returns different images for each seed: `[seeds, classes, largest count]`."""
    rng, largest = np.random.default_rng(0), max(COUNTS)
    per_class = [
        rng.permutation(np.flatnonzero(labels == c))[: SEEDS * largest] for c in classes
    ]
    return np.stack(per_class).reshape(len(classes), SEEDS, largest).swapaxes(0, 1)


def stage_ends(model) -> list[str]:
    """Returns the layers that leave each stage but the first."""
    specs = [spec for spec in model.layers((64, 64)) if "fc" not in spec.name]
    last = {spec.stage: spec.name for spec in specs if spec.stage}
    return [name for stage, name in last.items() if stage > 1]


def describe(network, images, layer, setting) -> np.ndarray:
    scales, combine = SETTINGS[setting]
    return np.concatenate(
        [
            descriptors(
                network,
                images[i : i + BATCH],
                layer=layer,
                scales=scales,
                combine=combine,
                random_weights=network.source == "random",
            )
            for i in range(0, len(images), BATCH)
        ]
    )


def measure(name, network, images, layer, setting) -> list[dict]:
    """Prints and returns one row per number of labels."""
    begin = time.monotonic()
    pool, test = (
        describe(network, x, layer, setting) for x in (images.pool, images.test)
    )
    described, rows = time.monotonic() - begin, []
    for count in COUNTS:
        scores = [
            linear_probe(
                Labelled(pool[row[count]], images.labels[row[count]]),
                Labelled(test, images.test_labels),
            )
            for row in images.rows
        ]
        row = {"name": name, "layer": layer, "setting": setting, "labels": count}
        row["width"] = pool.shape[1]
        for field in ("accuracy", "validation_accuracy", "strength"):
            row[field] = [round(getattr(score, field), 6) for score in scores]
        rows.append(row)
        print(
            f"{name:24} {layer:8} {count:4} labels per class  {_show(row)}  "
            f"C {row['strength']}  {pool.shape[1]} values  {described:.0f} s + "
            f"{time.monotonic() - begin - described:.0f} s",
            flush=True,
        )
    return rows


def _show(row) -> str:
    test, validation = (
        100 * np.array(row[k]) for k in ("accuracy", "validation_accuracy")
    )
    return (
        f"test {test.mean():.2f} +- {test.std(ddof=1):.2f}%  validation "
        f"{validation.mean():.2f}%"
    )


def best_layer(rows) -> str:
    """Returns the layer that validates best with the most labels."""
    full = [row for row in rows if row["labels"] == max(COUNTS)]
    return max(full, key=lambda row: np.mean(row["validation_accuracy"]))["layer"]


def run(network) -> dict:
    images, classes = unseen(network)
    print(f"classes: {', '.join(classes)}; {len(images.test)} test images\n")
    layers = []
    for layer in stage_ends(network.model):
        layers += measure(f"layer {layer}", network, images, layer, FIRST)
    chosen = best_layer(layers)
    print(f"\n{chosen} validates best at {FIRST}: every scale uses it\n")
    settings = [{**row, "name": FIRST} for row in layers if row["layer"] == chosen]
    for setting in list(SETTINGS)[1:]:
        settings += measure(setting, network, images, chosen, setting)
    control = random(network.model, network.preprocessing, size=network.size)
    settings += measure("random weights", control, images, chosen, "averaged")
    return {
        "sha256": network.sha256,
        "classes": classes,
        "chosen": chosen,
        "layers": layers,
        "settings": settings,
    }


def draw(numbers, ink: str) -> Figure:
    """Returns accuracy by labels, and by layer, one above the other for a phone."""
    figure = Figure(figsize=(5.2, 7.0), layout="constrained")
    above, below = figure.subplots(2)
    for i, name in enumerate(dict.fromkeys(r["name"] for r in numbers["settings"])):
        rows = [row for row in numbers["settings"] if row["name"] == name]
        style = ":" if "random" in name else "-"
        _line(above, [row["labels"] for row in rows], rows, i, name, style)
    above.set(xscale="log", xlabel="labels per class")
    above.set_title(f"linear SVM on {numbers['chosen']}, by scale", loc="left")
    above.set_xticks(COUNTS, [str(count) for count in COUNTS])
    above.minorticks_off()
    for i, count in enumerate(COUNTS):
        rows = [row for row in numbers["layers"] if row["labels"] == count]
        names = [row["layer"] for row in rows]
        _line(below, names, rows, i, f"{count} labels per class", "-")
    below.set_title(f"by layer, {FIRST}", loc="left")
    for panel in (above, below):
        panel.set_ylabel("test accuracy, %")
        panel.legend(frameon=False, fontsize=10, labelcolor=ink)
    return figure


def _line(panel, x, rows, i, label, style) -> None:
    scores = 100 * np.array([row["accuracy"] for row in rows])
    panel.errorbar(
        x,
        scores.mean(1),
        scores.std(1, ddof=1),
        fmt=f"o{style}",
        color=COLOURS[i],
        markersize=4,
        capsize=3,
        label=label,
    )


def save_pictures(numbers, out: Path) -> None:
    for page, (ink, paper) in {
        "light": ("#1f2328", "#ffffff"),
        "dark": ("#e2e4e9", "#1e2129"),
    }.items():
        keys = ("text.color", "axes.edgecolor", "axes.labelcolor")
        colours = dict.fromkeys((*keys, "xtick.color", "ytick.color"), ink)
        plain = {"axes.spines.top": False, "axes.spines.right": False}
        grid = {"axes.grid": True, "grid.alpha": 0.25, "font.size": 12}
        paint = {"figure.facecolor": paper, "axes.facecolor": paper}
        with rc_context({**colours, **plain, **grid, **paint}):
            draw(numbers, ink).savefig(out / f"accuracy-{page}.png", dpi=130)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", required=True, help="what `vgg_jax.load` takes")
    parser.add_argument("--out", type=Path, required=True, help="a directory")
    options = parser.parse_args()
    vgg_jax.configure()
    network = vgg_jax.load(options.network).configured(dtype="float32")
    print(f"{options.network}: {network.model.variant}, SHA-256 {network.sha256[:16]}")
    numbers = run(network)
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers, indent=1) + "\n"
    (options.out / "numbers.json").write_text(text)
    save_pictures(numbers, options.out)


if __name__ == "__main__":
    guarded(main)
