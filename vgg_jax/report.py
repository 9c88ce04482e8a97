"""One page that shows a run, or several beside each other; it needs no network.

Every run ends with `<workdir>/report.html`. To make it again, also of an unfinished
run, or to compare runs:

    python -m vgg_jax.report --workdir=runs/vgg16
    python -m vgg_jax.report --workdir=runs/vgg16 --workdir=runs/vgg16_bn
"""

import argparse
import base64
import html
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import PIL.Image

from vgg_jax import figures, gallery, log
from vgg_jax.errors import RunError, guarded

FILE = "report.html"
_FILTERS = 64  # shown at most


class Record:
    """What a workdir holds of its run, finished or not.

    Attributes:
        workdir: the directory.
        config: nested plain values.
        epochs: rows of `metrics.jsonl`, one an epoch.
        result: contents of `result.json`; None before the end.

    Raises:
        RunError: there is no run in the directory.
    """

    def __init__(self, workdir: Path):
        self.workdir = workdir
        try:
            self.config = json.loads((workdir / "config.json").read_text())
        except FileNotFoundError as error:
            raise RunError(
                f"{workdir} holds no run (no config.json): name the workdir of a run"
            ) from error
        rows = log.read(workdir)
        self.epochs = [row for row in rows if row["kind"] == "epoch"]
        file = workdir / "result.json"
        self.result = json.loads(file.read_text()) if file.exists() else None

    @property
    def name(self) -> str:
        return self.workdir.name

    def column(self, key: str) -> tuple[list[float], list[float]]:
        """Epochs and the values of `key` in their rows, where it is there."""
        found = [(row["epoch"], row[key]) for row in self.epochs if key in row]
        return [at for at, _ in found], [value for _, value in found]

    def drops(self) -> list[float]:
        """Epochs after which the plateau reduced the learning rate."""
        if self.config["schedule"]["name"] != "plateau":
            return []
        at, rate = self.column("learning_rate")
        pairs = zip(at, rate, rate[1:], strict=False)
        return [epoch + 0.5 for epoch, old, new in pairs if new < old]


def write(workdir: Path) -> Path:
    """Makes `<workdir>/report.html`; returns its path."""
    path = workdir / FILE
    log.write_atomically(path, page([Record(workdir)]))
    return path


def page(records: Sequence[Record]) -> str:
    """The page of one run, or the comparison of several."""
    title = " / ".join(record.name for record in records)
    body = _one(records[0]) if len(records) == 1 else _several(records)
    text = (Path(__file__).parent / "page.html").read_text()
    return Template(text).substitute(title=html.escape(title), body="\n".join(body))


def _one(record):
    config, result = record.config, record.result
    data, model = config["data"], config["model"]
    yield f"<h1>{html.escape(record.name)}</h1>"
    yield (
        f"<p>VGG configuration {html.escape(model['variant'])}"
        f"{' with batch norm' if model['batch_norm'] else ''} on "
        f"{html.escape(data['name'])}, {model['dtype']}, seed {config['seed']}.</p>"
    )
    yield from _numbers(record)
    yield from _curves(record)
    kept = gallery.load(record.workdir)
    if result:
        yield from _test(result["test"], kept)
    if kept:
        names = list(result["test"]["per_class"]) if result else []
        yield from _pictures(kept, names)
    yield "<h2>How it was made</h2>"
    if result:
        environment = result["environment"]
        yield f"<pre>{html.escape(environment['command'])}</pre>"
        yield _table(["", ""], environment.items())
    yield "<details><summary>the whole config</summary>"
    yield _table(["field", "value"], flat(config).items())
    yield "</details>"


def _numbers(record):
    tiles = {}
    if record.result:
        test = record.result["test"]
        tiles["test top-1"] = f"{100 * test['accuracy']:.2f}%"
        tiles["test top-5"] = f"{100 * test['top5']:.2f}%"
        tiles["test loss"] = f"{test['loss']:.4f}"
        tiles["training time"] = _duration(record.result["seconds"])
    else:
        yield "<p><b>This run is not finished.</b></p>"
    if record.epochs:
        last = record.epochs[-1]
        tiles["epochs"] = f"{last['epoch']} of {record.config['epochs']}"
        tiles["images a second"] = f"{last['images_per_second']:,.0f}"
        if best := record.column("val_accuracy")[1]:
            tiles["best validation top-1"] = f"{100 * max(best):.2f}%"
    cells = (
        f'<div class="tile"><b>{value}</b><span>{name}</span></div>'
        for name, value in tiles.items()
    )
    yield f'<div class="tiles">{"".join(cells)}</div>'


def _curves(record):
    if not record.epochs:
        yield "<p>No epoch is finished yet.</p>"
        return
    marks = record.drops()
    yield '<h2>Learning curves</h2><div class="figures">'
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
        ("images_per_second", "throughput", "training images a second"),
    ):
        at, values = record.column(key)
        yield figures.curves(
            {key: (at, values)},
            title=title,
            x="epoch",
            y=y,
            log=key == "learning_rate" and bool(marks),
            from_zero=key == "images_per_second",
        )
    yield "</div>"


def _test(test, kept):
    names = list(test["per_class"])
    yield f'<h2>On the {test["count"]:,} test images</h2><div class="figures">'
    yield figures.bars(
        test["per_class"], title="accuracy by class", x="top-1 accuracy, %"
    )
    if kept:
        right = (kept.guesses == kept.labels).astype(float)
        error = figures.calibration_error(kept.confidence, right)
        yield "<div>" + figures.calibration(kept.confidence, right)
        yield (
            f'<p class="soft">Mean confidence {kept.confidence.mean():.1%}, accuracy '
            f"{right.mean():.1%}; expected calibration error {error:.3f}.</p></div>"
        )
    yield figures.confusion(np.array(test["confusion"]), names)
    yield "</div>"


def _pictures(kept, names):
    called = lambda i: names[i] if i < len(names) else str(i)  # noqa: E731
    if len(kept.mistakes):
        yield '<h2>The most confident mistakes</h2><div class="pictures">'
        for place, picture in zip(kept.mistakes, kept.pictures, strict=True):
            guess, true = kept.guesses[place], kept.labels[place]
            sure = kept.confidence[place]
            caption = f"<b>{called(guess)}</b> {sure:.0%}<br>is {called(true)}"
            yield f"<figure>{_image(picture, called(true))}{caption}</figure>"
        yield "</div>"
    yield "<h2>Training images as the network saw them</h2>"
    yield '<p class="soft">Augmented and normalised, all stretched to one range.</p>'
    yield '<div class="pictures small">'
    yield from (_image(picture, "training image") for picture in kept.samples)
    yield "</div>"
    if kept.filters.shape[2] == 3:
        count = kept.filters.shape[-1]
        yield f"<h2>First-layer filters</h2><p class='soft'>conv1_1, {count} of "
        yield f"{kept.filters.shape[0]}x{kept.filters.shape[1]} pixels, each stretched "
        yield 'to its own range.</p><div class="pictures small">'
        for i in range(min(count, _FILTERS)):
            yield _image(gallery.stretch(kept.filters[..., i]), f"filter {i}")
        yield "</div>"


def _several(records):
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
                _duration(sum(row["seconds"] for row in record.epochs)),
            )
        )
    heads = ["run", "test top-1", "best validation top-1", "epochs", "time"]
    yield _table(heads, rows)
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
    yield _table(heads, differing) if fields else "<p>Nowhere.</p>"


def flat(config: Mapping, prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    found = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def _table(heads, rows):
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    top = f"<tr>{head}</tr>" if any(heads) else ""
    return f'<div class="scroll"><table>{top}{body}</table></div>'


def _image(pixels, name):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(name)}">'


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def main(arguments: Sequence[str]) -> None:
    """The command line; prints the path of the page."""
    parser = argparse.ArgumentParser(
        "python -m vgg_jax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir", type=Path, action="append", required=True, help="of a run"
    )
    parser.add_argument("--out", type=Path, help="file to write")
    options = parser.parse_args(arguments)
    name = FILE if len(options.workdir) == 1 else "comparison.html"
    path = options.out or options.workdir[0] / name
    records = [Record(workdir) for workdir in options.workdir]
    log.write_atomically(path, page(records))
    print(path)


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
