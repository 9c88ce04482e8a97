"""One page that shows a run, finished or not; it needs no network."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.files import write_atomically
from vgg_jax.runs import figures, gallery
from vgg_jax.runs.gallery import Gallery
from vgg_jax.runs.html_page import duration, render
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import flatten

FILE = "report.html"
_FILTERS = 64  # shown at most


def write(workdir: Path) -> Path:
    """Writes `<workdir>/report.html`; returns its path."""
    path = workdir / FILE
    write_atomically(path, page(RunRecord(workdir)))
    return path


def page(record: RunRecord) -> str:
    """Returns the page of a run, finished or not."""
    result, shown = record.result, gallery.load(record.workdir)
    names = class_names(result) if result else []
    return render(
        "report.html",
        title=record.name,
        config=record.config,
        fields=flatten(record.config),
        result=result,
        tiles=_tiles(record),
        curves=list(_curves(record)),
        test=_test(result["test"], names, shown) if result else None,
        shown=shown,
        mistakes=list(_mistakes(shown, names)) if shown else [],
        filters=_filters(shown) if shown else [],
    )


def class_names(result: Mapping[str, Any]) -> list[str]:
    """Returns the names of the classes of a `result.json`, in the order of labels.

    Before 0.2 it named only the classes of the test split, in that order. A class that
    it does not name is called by its number.

    >>> test = {"per_class": {"cat": 1.0, "frog": 0.5},
    ...         "confusion": [[2, 0, 0], [0, 0, 0], [1, 0, 1]]}
    >>> class_names({"test": test})
    ['cat', '1', 'frog']
    >>> class_names({"test": test, "classes": ["cat", "dog", "frog"]})
    ['cat', 'dog', 'frog']
    """
    counts = np.sum(result["test"]["confusion"], axis=1)
    names = list(map(str, range(len(counts))))
    if "classes" in result:
        known = dict(enumerate(result["classes"]))
    else:
        seen = np.flatnonzero(counts)
        known = dict(zip(seen.tolist(), result["test"]["per_class"], strict=True))
    return [known.get(label, name) for label, name in enumerate(names)]


def _tiles(record: RunRecord) -> dict[str, str]:
    tiles = {}
    if record.result:
        test = record.result["test"]
        tiles["test top-1"] = f"{test['accuracy']:.2%}"
        tiles["test top-5"] = f"{test['top5']:.2%}"
        tiles["test loss"] = f"{test['loss']:.4f}"
        tiles["training time"] = duration(record.result["seconds"])
    if record.epochs:
        last = record.epochs[-1]
        tiles["epochs"] = f"{last['epoch']} of {record.config['epochs']}"
        tiles["images/s"] = f"{last['images_per_second']:,.0f}"
        if best := record.column("val_accuracy")[1]:
            tiles["best validation top-1"] = f"{max(best):.2%}"
    return tiles


def _curves(record: RunRecord) -> Iterator[str]:
    if not record.epochs:
        return
    marks = record.drops()
    for what, y, scale in (
        ("loss", "loss, nats", 1),
        ("accuracy", "top-1 accuracy, %", 100),
    ):
        series = {}
        for split, name in (("train", "training"), ("val", "validation")):
            at, values = record.column(f"{split}_{what}")
            if at:
                series[name] = at, [scale * value for value in values]
        yield figures.curves(series, title=what, x="epoch", y=y, marks=marks)
    for key, title, y in (
        ("learning_rate", "learning rate", "at the epoch's end"),
        ("images_per_second", "throughput", "training images/s"),
    ):
        yield figures.curves(
            {key: record.column(key)},
            title=title,
            x="epoch",
            y=y,
            log=key == "learning_rate" and bool(marks),
            from_zero=key == "images_per_second",
        )


def _test(
    test: Mapping[str, Any], names: list[str], shown: Gallery | None
) -> dict[str, Any]:
    """Returns figures and numbers of the test split; `names` are of all classes."""
    confusion = np.array(test["confusion"])
    seen = np.flatnonzero(confusion.sum(1))
    share = confusion.diagonal()[seen] / confusion.sum(1)[seen]
    parts: dict[str, Any] = {
        "bars": figures.bars(
            [names[label] for label in seen],
            share.tolist(),
            title="accuracy by class",
            x="top-1 accuracy, %",
        ),
        "confusion": figures.confusion(confusion, names),
    }
    if shown:
        right = (shown.guesses == shown.labels).astype(float)
        parts |= {
            "calibration": figures.calibration(shown.confidence, right),
            "confidence": shown.confidence.mean(),
            "accuracy": right.mean(),
            "error": figures.calibration_error(shown.confidence, right),
        }
    return parts


def _mistakes(shown: Gallery, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yields what is shown of each; before the result, classes are numbers."""
    called = lambda label: figures.shorten(names[label]) if names else str(label)
    for place, picture in zip(shown.mistakes, shown.pictures, strict=True):
        yield {
            "picture": picture,
            "guess": called(shown.guesses[place]),
            "label": called(shown.labels[place]),
            "confidence": shown.confidence[place],
        }


def _filters(shown: Gallery) -> list[np.ndarray]:
    """Returns the first-layer filters as pictures; none if they are not of colours."""
    if shown.filters.shape[2] != 3:
        return []
    filters = np.moveaxis(shown.filters, -1, 0)[:_FILTERS]
    return [gallery.stretch(kernel) for kernel in filters]
