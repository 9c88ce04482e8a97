"""One page that puts runs beside each other: results, curves, where configs differ."""

from collections.abc import Iterator, Sequence

from vgg_jax.runs import figures
from vgg_jax.runs.html_page import duration, render
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import flatten

FILE = "comparison.html"
_ACROSS = 4  # runs beside each other even for few fields


def page(records: Sequence[RunRecord]) -> str:
    """Returns the page that compares runs."""
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        names = [str(record.workdir) for record in records]
    return render(
        "comparison.html",
        title=" / ".join(names),
        results=list(map(_result, names, records)),
        curves=list(_curves(names, records)),
        differences=_differences(names, records),
    )


def _result(name: str, record: RunRecord) -> tuple:
    test = record.result["test"] if record.result else None
    best = record.column("val_accuracy")[1]
    return (
        name,
        f"{test['accuracy']:.2%} of {test['count']:,}"
        if test
        else "not tested"
        if record.trained
        else "unfinished",
        f"{max(best):.2%}" if best else "",
        record.epochs[-1]["epoch"] if record.epochs else 0,
        duration(sum(row["seconds"] for row in record.epochs)),
    )


def _curves(names: list[str], records: Sequence[RunRecord]) -> Iterator[str]:
    """Yields figures; a run without a value keeps its place, and so its colour."""
    for key, title, y, scale in (
        ("val_accuracy", "validation accuracy", "top-1, %", 100),
        ("val_loss", "validation loss", "nats", 1),
        ("train_accuracy", "training accuracy", "top-1, %", 100),
        ("train_loss", "training loss", "nats", 1),
    ):
        series = {}
        for name, record in zip(names, records, strict=True):
            at, values = record.column(key)
            series[name] = at, [scale * value for value in values]
        if any(at for at, _ in series.values()):
            yield figures.curves(series, title=title, x="epoch", y=y)


def _differences(names: list[str], records: Sequence[RunRecord]) -> list[tuple]:
    """Returns the rows of a table, its heads first; none where the configs agree.

    One row per field; transposed when many runs differ in few fields.
    """
    configs = [
        {field: _value(value) for field, value in flatten(record.config).items()}
        for record in records
    ]
    fields = [f for f in configs[0] if len({c.get(f) for c in configs}) > 1]
    if not fields:
        return []
    rows = [
        ("field", *names),
        *((f, *(c.get(f, "") for c in configs)) for f in fields),
    ]
    if len(records) <= max(_ACROSS, len(fields)):
        return rows
    (_, *heads), *columns = zip(*rows, strict=True)
    return [("run", *heads), *columns]


def _value(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)
