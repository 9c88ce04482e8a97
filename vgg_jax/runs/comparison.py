"""One page that puts runs beside each other: results, curves, where configs differ."""

from collections.abc import Sequence

from vgg_jax.runs import figures
from vgg_jax.runs.html_page import document, duration, table
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import flatten

FILE = "comparison.html"
_ACROSS = 4  # runs beside each other even for few fields


def page(records: Sequence[RunRecord]) -> str:
    """Returns the page that compares runs."""
    title = " / ".join(record.name for record in records)
    return document(title, _body(records))


def _body(records):
    yield f"<h1>{len(records)} runs</h1>"
    heads = ["run", "test top-1", "best validation top-1", "epochs", "time"]
    yield table(heads, map(_row, records))
    yield '<h2>Learning curves</h2><div class="figures">'
    yield from _curves(records)
    yield "</div><h2>Where the configs differ</h2>"
    yield _differences(records)


def _row(record):
    test = record.result["test"] if record.result else None
    best = record.column("val_accuracy")[1]
    return (
        record.name,
        _share(test) if test else "unfinished",
        f"{100 * max(best):.2f}%" if best else "",
        record.epochs[-1]["epoch"] if record.epochs else 0,
        duration(sum(row["seconds"] for row in record.epochs)),
    )


def _share(test):
    return f"{100 * test['accuracy']:.2f}% of {test['count']:,}"


def _curves(records):
    """Yields figures; a run without a value keeps its place, and so its colour."""
    for key, title, y, scale in (
        ("val_accuracy", "validation accuracy", "top-1, %", 100),
        ("val_loss", "validation loss", "nats", 1),
        ("train_accuracy", "training accuracy", "top-1, %", 100),
        ("train_loss", "training loss", "nats", 1),
    ):
        series = {}
        for record in records:
            at, values = record.column(key)
            series[record.name] = at, [scale * value for value in values]
        if any(at for at, _ in series.values()):
            yield figures.curves(series, title=title, x="epoch", y=y)


def _differences(records):
    """One row per field; transposed when many runs differ in few fields."""
    configs = [
        {field: _value(value) for field, value in flatten(record.config).items()}
        for record in records
    ]
    fields = [f for f in configs[0] if len({c.get(f) for c in configs}) > 1]
    if not fields:
        return "<p>Nowhere.</p>"
    names = [record.name for record in records]
    rows = [(f, *(c.get(f, "") for c in configs)) for f in fields]
    if len(names) <= max(_ACROSS, len(fields)):
        return table(["field", *names], rows)
    heads, *columns = zip(("run", *names), *rows, strict=True)
    return table(heads, columns)


def _value(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)
