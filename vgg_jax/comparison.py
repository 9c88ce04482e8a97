"""One page that puts runs beside each other: results, curves, where configs differ."""

from collections.abc import Sequence

from vgg_jax import figures
from vgg_jax.config import flat
from vgg_jax.page import document, duration, table
from vgg_jax.record import Record


def page(records: Sequence[Record]) -> str:
    """The page that compares them."""
    title = " / ".join(record.name for record in records)
    return document(title, _body(records))


def _body(records):
    yield f"<h1>{len(records)} runs</h1>"
    rows = []
    for record in records:
        test = record.result["test"] if record.result else None
        best = record.column("val_accuracy")[1]
        rows.append(
            (
                record.name,
                f"{100 * test['accuracy']:.2f}%" if test else "unfinished",
                f"{100 * max(best):.2f}%" if best else "",
                record.epochs[-1]["epoch"] if record.epochs else 0,
                duration(sum(row["seconds"] for row in record.epochs)),
            )
        )
    heads = ["run", "test top-1", "best validation top-1", "epochs", "time"]
    yield table(heads, rows)
    yield '<h2>Learning curves</h2><div class="figures">'
    for key, y, scale in (
        ("val_accuracy", "validation top-1 accuracy, %", 100),
        ("val_loss", "validation loss, nats", 1),
        ("train_loss", "training loss, nats", 1),
        ("train_accuracy", "training top-1 accuracy, %", 100),
    ):
        series = {}
        for record in records:
            at, values = record.column(key)
            if at:
                series[record.name] = at, [scale * value for value in values]
        if series:
            yield figures.curves(series, title=y, x="epoch", y=y)
    yield "</div><h2>Where the configs differ</h2>"
    configs = [flat(record.config) for record in records]
    fields = [f for f in configs[0] if len({str(c.get(f)) for c in configs}) > 1]
    heads = ["field", *(record.name for record in records)]
    differing = [(f, *(c.get(f, "") for c in configs)) for f in fields]
    yield table(heads, differing) if fields else "<p>Nowhere.</p>"
