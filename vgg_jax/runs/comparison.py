"""One page that puts runs beside each other: results, curves, where configs differ."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.runs import report
from vgg_jax.runs.curves import Line, curves, flattened, legend
from vgg_jax.runs.html_page import duration, link, render
from vgg_jax.runs.run_record import REPORT, RunRecord
from vgg_jax.runs.setting import Setting, differing, ranking, settings, spread

FILE = "comparison.html"
_ACROSS = 4  # settings beside each other even for few fields


def page(records: Sequence[RunRecord], directory: Path | None = None) -> str:
    """Returns the page that compares runs, best setting first.

    Args:
        records: the runs.
        directory: where the page will lie, for its links to the reports of the runs;
            the workdir of the first run by default.
    """
    directory = directory or records[0].workdir
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        names = [str(record.workdir) for record in records]
    called = {id(record): name for record, name in zip(records, names, strict=True)}
    tried = settings(records, names)
    return render(
        "comparison.html",
        title=" / ".join(names),
        ranked_by=ranking(tried),
        settings=list(_settings(tried)),
        runs=[
            {"name": called[id(record)], **_run(record, directory), "setting": i}
            for i, setting in enumerate(tried)
            for record in setting.records
        ],
        legend=legend([setting.title for setting in tried]),
        curves=list(_curves(tried)),
        smoothed=[s.title for s in tried if report.smoothing(s.records[0].config)],
        differences=_differences(tried),
    )


def _settings(tried: Sequence[Setting]) -> Iterator[dict[str, Any]]:
    split = ranking(tried)
    best = tried[0].mean(split)
    for setting in tried:
        yield {
            "title": setting.title,
            "best": len(tried) > 1 and best is not None and setting.mean(split) == best,
            "validation": spread(setting.validation).replace("+-", "±"),
            "test": spread(setting.test).replace("+-", "±"),
            "seeds": len(setting.records),
        }


def _run(record: RunRecord, directory: Path) -> dict[str, Any]:
    test = record.result["test"] if record.result else {}
    unfinished = "not tested" if record.trained else "unfinished"
    best = record.column("val_accuracy")[1]
    return {
        "link": link(record.workdir / REPORT, directory),
        "seed": record.config["seed"],
        "test": spread([test["accuracy"]]) if test else unfinished,
        "count": f"{test['count']:,}" if "count" in test else "",
        "validation": spread([max(best)]) if best else "-",
        "epochs": record.epochs[-1]["epoch"] if record.epochs else 0,
        "time": duration(sum(row["seconds"] for row in record.epochs)),
    }


def _curves(tried: Sequence[Setting]) -> Iterator[str]:
    """Yields figures; a setting without values keeps its place, and so its colour."""
    for key, title, y, scale in (
        ("val_accuracy", "validation accuracy", "top-1, %", 100),
        ("val_loss", "validation loss", "nats", 1),
        ("train_accuracy", "training accuracy", "top-1, %", 100),
        ("train_loss", "training loss", "nats", 1),
    ):
        lines = {setting.title: _line(setting, key, scale) for setting in tried}
        known = [line for line in lines.values() if len(line.at)]
        if known:
            log = key.endswith("loss") and flattened(known)
            yield curves(lines, title=title, x="epoch", y=y, log=log)


def _line(setting: Setting, key: str, scale: float) -> Line:
    """Returns mean and spread of a column, at the epochs that all runs have."""
    columns = [dict(zip(*r.column(key), strict=True)) for r in setting.records]
    at = sorted(set.intersection(*map(set, columns)))
    if len(columns) == 1 or not at:
        return Line(at, [scale * columns[0][epoch] for epoch in at])
    values = scale * np.array([[column[epoch] for epoch in at] for column in columns])
    return Line(at, values.mean(0).tolist(), values.std(0, ddof=1).tolist())


def _differences(tried: Sequence[Setting]) -> list[tuple]:
    """Returns the rows of a table, its heads first; none where the configs agree.

    One row per field; transposed when many settings differ in few fields.
    """
    fields = differing([setting.fields for setting in tried])
    if not fields:
        return []
    rows = [
        ("field", *(setting.title for setting in tried)),
        *((f, *(s.fields.get(f, "") for s in tried)) for f in fields),
    ]
    if len(tried) <= max(_ACROSS, len(fields)):
        return rows
    (_, *heads), *columns = zip(*rows, strict=True)
    return [("setting", *heads), *columns]
