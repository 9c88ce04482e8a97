"""One page that shows a run, finished or not; it needs no network."""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.files import write_atomically
from vgg_jax.runs import figures, gallery
from vgg_jax.runs.confusion import confusion
from vgg_jax.runs.curves import Line, curves, flattened, legend
from vgg_jax.runs.gallery import Gallery
from vgg_jax.runs.html_page import duration, link, render
from vgg_jax.runs.run_record import REPORT, RunRecord
from vgg_jax.runs.workdir import flatten

EXPORTED = "page.html"  # what `vgg export --to=html` leaves in a workdir
_FILTERS = 64  # shown at most
_TOP5_SAYS = 5  # classes, beyond which a top-5 accuracy says something
_COLUMNS = (
    ("epoch", "epoch", "{}"),
    ("training loss", "train_loss", "{:.4f}"),
    ("training top-1", "train_accuracy", "{:.2%}"),
    ("validation loss", "val_loss", "{:.4f}"),
    ("validation top-1", "val_accuracy", "{:.2%}"),
    ("learning rate", "learning_rate", "{:.4g}"),
    ("images/s", "images_per_second", "{:,.0f}"),
)


def write(workdir: Path) -> Path:
    """Writes `<workdir>/report.html`; returns its path."""
    path = workdir / REPORT
    write_atomically(path, page(RunRecord(workdir)))
    return path


def page(record: RunRecord, directory: Path | None = None) -> str:
    """Returns the page of a run, finished or not.

    Args:
        record: the run.
        directory: where the page will lie, for its links; the workdir by default.
    """
    result, shown = record.result, gallery.load(record.workdir)
    names = class_names(result) if result else []
    shown_mistakes = list(mistakes(shown, names)) if shown else []
    lines = legend(["training", "validation"] if _validated(record) else ["training"])
    return render(
        "report.html",
        title=record.name,
        config=record.config,
        fields=flatten(record.config),
        result=result,
        environment=_environment(result) if result else {},
        trained=record.trained,
        exported=link(record.workdir / EXPORTED, directory or record.workdir),
        tiles=_tiles(record, len(names)),
        legend=lines,
        drops=bool(record.drops()),
        curves=list(_learning(record)) if record.epochs else [],
        rates=list(_rates(record)) if len(record.epochs) > 1 else [],
        table_rows=_table(record),
        smoothing=smoothing(record.config),
        test=_test(result["test"], names, shown, shown_mistakes) if result else None,
        shown=shown,
        mistakes=shown_mistakes[: gallery.MISTAKES],
        explained=shown is not None and shown.heat is not None,
        filters=_filters(shown) if shown else [],
    )


def smoothing(config: Mapping[str, Any]) -> float:
    """Returns the label smoothing of a config, which the training loss counts."""
    return config.get("label_smoothing", 0.0)


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


def _environment(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where the run was made; its command stands above."""
    return {k: v for k, v in result["environment"].items() if k != "command"}


def _validated(record: RunRecord) -> bool:
    return bool(record.column("val_loss")[0])


def _tiles(record: RunRecord, classes: int) -> dict[str, str]:
    tiles = {}
    if record.result:
        test = record.result["test"]
        tiles["test top-1"] = f"{test['accuracy']:.2%}"
        if classes > _TOP5_SAYS:
            tiles["test top-5"] = f"{test['top5']:.2%}"
        tiles["test loss"] = f"{test['loss']:.4f}"
        tiles["training time"] = duration(record.result["seconds"])
    if record.epochs:
        tiles["epochs"] = f"{record.epochs[-1]['epoch']} of {record.config['epochs']}"
        rates = _without_first(record).values
        compiled = len(record.epochs) > 1
        name = "training images/s" if compiled else "images/s, compiling included"
        tiles[name] = f"{statistics.median(rates):,.0f}"
        if best := record.column("val_accuracy")[1]:
            tiles["best validation top-1"] = f"{max(best):.2%}"
    return tiles


def _without_first(record: RunRecord) -> Line:
    """Returns the rates without the first epoch's, which counts compiling."""
    at, rates = record.column("images_per_second")
    return Line(at[1:], rates[1:]) if len(at) > 1 else Line(at, rates)


def _learning(record: RunRecord) -> Iterator[str]:
    for what, y, scale in (
        ("loss", "loss, nats", 1),
        ("accuracy", "top-1 accuracy, %", 100),
    ):
        series = {}
        for split, name in (("train", "training"), ("val", "validation")):
            at, values = record.column(f"{split}_{what}")
            if at:
                series[name] = Line(at, [scale * value for value in values])
        log = what == "loss" and flattened(list(series.values()))
        yield curves(series, title=what, x="epoch", y=y, marks=record.drops(), log=log)


def _rates(record: RunRecord) -> Iterator[str]:
    rate = {"learning rate": Line(*record.column("learning_rate"))}
    yield curves(rate, title="learning rate", x="epoch", y="at the epoch's end",
                 log=bool(record.drops()))  # fmt: skip
    speed = {"training images/s": _without_first(record)}
    yield curves(speed, title="throughput", x="epoch", y="training images/s",
                 from_zero=True)  # fmt: skip


def _table(record: RunRecord) -> list[tuple]:
    """Returns what the curves show as rows of text, the heads of columns first."""
    columns = [(head, key, form) for head, key, form in _COLUMNS
               if record.column(key)[0]]  # fmt: skip
    heads = tuple(head for head, _, _ in columns)
    say = lambda row, key, form: form.format(row[key]) if key in row else ""
    return [
        heads,
        *(tuple(say(row, k, form) for _, k, form in columns) for row in record.epochs),
    ]


def _test(
    test: Mapping[str, Any],
    names: list[str],
    shown: Gallery | None,
    shown_mistakes: list[dict[str, Any]],
) -> dict[str, Any]:
    """Returns figures and numbers of the test split; `names` are of all classes."""
    matrix = np.array(test["confusion"])
    seen = np.flatnonzero(matrix.sum(1))
    share = matrix.diagonal()[seen] / matrix.sum(1)[seen]
    table = confusion(matrix, names, shown, shown_mistakes)
    parts: dict[str, Any] = {
        "bars": figures.bars(
            [names[label] for label in seen],
            share.tolist(),
            title="accuracy by class",
            x="top-1 accuracy, %",
        ),
        "confusion": table,
        "confusion_picture": "" if table.rows else figures.confusion(matrix, names),
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


def mistakes(shown: Gallery, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yields what is shown of each; before the result, classes are numbers."""
    called = lambda label: figures.shorten(names[label]) if names else str(label)
    heat = [] if shown.heat is None else shown.heat
    for i, place in enumerate(shown.mistakes):
        yield {
            "picture": shown.pictures[i],
            "heat": heat[i] if i < len(heat) else None,
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
