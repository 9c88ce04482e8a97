"""Reproduces the choices of the paper's appendix A on pictures with known boxes.

    python -m benchmarks.localisation --workdir runs/localisation \\
        --out results/localisation

The pictures are images of CIFAR-10, stretched and pasted on windows of photographs
(`data.composites`): 12,000 of its training images for training, 2,000 of its validation
images for choices and 5,000 of its test images, each set on photographs of its own. A
small VGG, A without its fifth stage and an eighth as wide, learns their classes by
`vgg_jax.train`. It is made into localisers of four kinds, of which Table 8 has three:
one box for all classes (SCR) or one per class (PCR), where all layers train or only the
dense ones.

The learning rate of a kind is the one with the lowest validation error with the first
seed. With it the test pictures are read once per kind and seed, from the central crop
and with the true class: the paper's first protocol. The kind that validates best is
also tested densely, the second protocol, once, with the scales and the threshold of
merging that validate best.

The same command goes on with the classifier where it was stopped. It ends with
`numbers.json`, `table.md` and `boxes-{light,dark}.png` in `--out`, and
`localiser.safetensors` in `--workdir`. Needs CIFAR-10, and scikit-image and
scikit-learn for their photographs (`pip install scikit-image scikit-learn`).
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console

import vgg_jax
from benchmarks.localisation_picture import save_pictures
from benchmarks.transfer import write_set
from configs import default
from vgg_jax import machine
from vgg_jax.data import datasets
from vgg_jax.data.composites import composites
from vgg_jax.data.datasets import Split
from vgg_jax.errors import RunError, guarded
from vgg_jax.evaluation import localisation
from vgg_jax.inference.localise import central_boxes, localise
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.training.box_regression import BoxRegression
from vgg_jax.training.localisation import fine_tune
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

VARIANT = "conv3-64 | conv3-128 | conv3-256 conv3-256 | conv3-512 conv3-512 |"
COUNTS = {"train": 12000, "validation": 2000, "test": 5000}
# By the names that scikit-image and scikit-learn have for them.
PHOTOGRAPHS = {
    "train": (
        *("rocket", "hubble_deep_field", "stereo_motorcycle"),
        *("immunohistochemistry", "china.jpg"),
    ),
    "validation": ("astronaut", "retina"),
    "test": ("chelsea", "coffee", "flower.jpg"),
}
SCALE, SIZE = 80, 64  # pixels of the scaled picture, and of what the network sees of it
EPOCHS, CLASSIFIER_EPOCHS, BATCH = 4, 12, 64
RATES, SEEDS = (0.03, 0.1, 0.3), (0, 1)
# Layers that train, a box per class -> the paper's validation error in per cent.
PAPER = {
    ("dense", False): 36.4,
    ("dense", True): 34.3,
    ("all", False): None,
    ("all", True): 33.1,
}
SCALES = ((80,), (96,), (80, 96))  # of the dense application: 4, 9, 13 windows
THRESHOLDS = (0.1, 0.5, 1.0)  # of merging


def photograph(name):
    """Returns a photograph, uint8 `[H, W, 3]`.

    Raises:
        RunError: scikit-image or scikit-learn is not installed.
    """
    try:
        import skimage.data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise RunError(f"{error}: pip install scikit-image scikit-learn") from error
    if name.endswith(".jpg"):
        return np.asarray(load_sample_image(name))
    found = getattr(skimage.data, name)()
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def pictures():
    """Returns the composites of each role, and the names of the classes."""
    whole, made = datasets.load("cifar10"), {}
    for seed, (role, count) in enumerate(COUNTS.items()):
        split = getattr(whole, role)
        part = Split(split.images[:count], split.labels[:count])
        made[role] = composites(part, [*map(photograph, PHOTOGRAPHS[role])], seed=seed)
    return made, whole.classes


def classifier(sets, classes, workdir):
    """Trains the classifier, or finds it trained; returns it as a network."""
    data_dir = (workdir / "data").absolute()
    labelled = {role: (made.images, made.labels) for role, made in sets.items()}
    write_set("composites", data_dir, classes, labelled)
    config = default.get_config()
    config.update_from_flattened_dict(
        {
            "epochs": CLASSIFIER_EPOCHS,
            "batch_size": BATCH,
            "lr": 0.03,
            "test_with": "last",
            "data.name": "composites",
            "data.data_dir": str(data_dir),
            "data.validation": "validation",
            "augment.scales": (SCALE,),
            "augment.resize": SIZE,
            "augment.flip": "random",
            "model.variant": VARIANT,
            "model.width": 0.125,
            "model.batch_norm": True,
            "model.hidden": (256, 256),
            "model.dropout": 0.0,
            "optimizer.decay": "l2",
            "schedule.name": "cosine",
            "schedule.warmup": 0.1,
        }
    )
    vgg_jax.train(config, workdir / "classifier", Console(width=88))
    return vgg_jax.load(workdir / "classifier")


def trained(network, sets, kind, rate, seed):
    """Returns a localiser, and prints its validation error."""
    layers, per_class = kind
    regression = BoxRegression(
        layers=layers,
        per_class=per_class,
        scale=SCALE,
        epochs=EPOCHS,
        batch_size=BATCH,
        lr=rate,
        schedule=Schedule(name="cosine", warmup=0.1),
        optimizer=SGD(decay="l2", clip_norm=1.0),
        seed=seed,
    )
    begin, losses = time.monotonic(), []
    localiser = fine_tune(
        network, sets["train"], regression, lambda epoch, loss: losses.append(loss)
    )
    error = central_error(localiser, sets["validation"])
    print(
        f"{named(kind)}, lr {rate:g}, seed {seed}: loss {losses[0]:.4f} ... "
        f"{losses[-1]:.4f}, validation error {100 * error:.2f}%, "
        f"{time.monotonic() - begin:.0f} s",
        flush=True,
    )
    return localiser, error


def named(kind):
    layers, per_class = kind
    return f"{layers} layers, {'PCR' if per_class else 'SCR'}"


def central_error(localiser, made):
    """Returns the error of the paper's first protocol, in [0, 1]."""
    boxes = central_boxes(localiser, made.images, made.labels, scale=SCALE)
    return localisation.error(np.asarray(boxes), made.boxes)


def measured(network, sets, kind):
    """Chooses the rate of a kind, trains the other seeds, reads the test pictures.

    Returns:
        The row of the kind, errors in per cent, and the localiser of the first seed.
    """
    tried = {rate: trained(network, sets, kind, rate, 0) for rate in RATES}
    rate = min(tried, key=lambda rate: tried[rate][1])
    runs = [tried[rate], *(trained(network, sets, kind, rate, s) for s in SEEDS[1:])]
    test = [central_error(localiser, sets["test"]) for localiser, _ in runs]
    row = {
        "layers": kind[0],
        "per_class": kind[1],
        "rates": {f"{rate:g}": _per_cent([e])[0] for rate, (_, e) in tried.items()},
        "rate": rate,
        "validation": _per_cent([error for _, error in runs]),
        "test": _per_cent(test),
        "paper": PAPER[kind],
    }
    print(f"{named(kind)}, lr {rate:g}: test error {row['test']}%\n", flush=True)
    return row, runs[0][0]


def _per_cent(errors):
    return [round(100 * error, 2) for error in errors]


def densely(localiser, network, sets):
    """Returns errors in per cent of the second protocol, with one guess and with five.

    Scales and threshold are those with the lowest validation error of one guess.
    """

    def errors(role, scales, threshold):
        made = sets[role]
        how = {"scales": scales, "threshold": threshold, "top": 5}
        found = localise(localiser, network, made.images, **how)
        return [
            localisation.top_error(
                found.labels[:, :top], found.boxes[:, :top], made.labels, made.boxes
            )
            for top in (1, 5)
        ]

    tried = {}
    for scales in SCALES:
        for threshold in THRESHOLDS:
            found = tried[scales, threshold] = errors("validation", scales, threshold)
            print(
                f"dense, scales {scales}, threshold {threshold}: validation error "
                f"{_per_cent(found)}% (one guess, five)",
                flush=True,
            )
    scales, threshold = min(tried, key=lambda setting: tried[setting][0])
    return {
        "scales": scales,
        "threshold": threshold,
        "validation": _per_cent(tried[scales, threshold]),
        "test": _per_cent(errors("test", scales, threshold)),
    }


def table(rows):
    """Returns the paper's Table 8 and ours beside it, as Markdown."""
    lines = [
        "| layers that train | regression | validation error, % | test error, % | lr | "
        "the paper's validation error, % |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        validation, test = (
            f"{statistics.mean(row[key]):.1f} ({', '.join(map(str, row[key]))})"
            for key in ("validation", "test")
        )
        layers = {"dense": "fc6, fc7, fc8", "all": "all"}[row["layers"]]
        kind = "PCR" if row["per_class"] else "SCR"
        paper = row["paper"] or "-"
        lines.append(
            f"| {layers} | {kind} | {validation} | {test} | {row['rate']:g} | {paper} |"
        )
    return "\n".join(lines) + "\n"


def run(workdir):
    """Returns the numbers, the test pictures, and the localiser that validates best."""
    sets, classes = pictures()
    network = classifier(sets, classes, workdir)
    found = [measured(network, sets, kind) for kind in PAPER]
    rows = [row for row, _ in found]
    best = min(found, key=lambda pair: pair[0]["validation"][0])
    kind = best[0]["layers"], best[0]["per_class"]
    print(f"{named(kind)} validates best: it is applied densely")
    made = sets["test"]
    centre = np.tile(np.float32([[0.5, 0.5, 0.5, 0.5]]), (len(made.boxes), 1))
    numbers = {
        "classifier": RunRecord(workdir / "classifier").result["test"],
        "middle": _per_cent([localisation.error(centre, made.boxes)]),
        "rows": rows,
        "dense": {"kind": named(kind), **densely(best[1], network, sets)},
    }
    return numbers, made, best[1]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/localisation"))
    parser.add_argument("--out", type=Path, required=True, help="a directory")
    options = parser.parse_args()
    vgg_jax.configure()
    print(machine.environment())
    begin = time.monotonic()
    numbers, made, localiser = run(options.workdir)
    file = options.workdir / "localiser.safetensors"
    vgg_jax.save(localiser, file, overwrite=True)
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers, indent=1) + "\n"
    (options.out / "numbers.json").write_text(text)
    (options.out / "table.md").write_text(table(numbers["rows"]))
    save_pictures(localiser, made, SCALE, options.out)
    print(table(numbers["rows"]))
    print(f"dense: {numbers['dense']}; a box in the middle: {numbers['middle']}%")
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    guarded(main)
