"""One page that shows a run, finished or not; it needs no network."""

import html
from pathlib import Path

import numpy as np

from vgg_jax.files import write_atomically
from vgg_jax.runs import figures, gallery
from vgg_jax.runs.html_page import document, duration, image, table
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
    return document(record.name, _body(record))


def _body(record):
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
    shown = gallery.load(record.workdir)
    if result:
        yield from _test(result["test"], shown)
    if shown:
        names = list(result["test"]["per_class"]) if result else []
        yield from _pictures(shown, names)
    yield "<h2>How it was made</h2>"
    if result:
        environment = result["environment"]
        yield f"<pre>{html.escape(environment['command'])}</pre>"
        yield table(["", ""], environment.items())
    yield "<details><summary>the whole config</summary>"
    yield table(["field", "value"], flatten(config).items())
    yield "</details>"


def _numbers(record):
    tiles = {}
    if record.result:
        test = record.result["test"]
        tiles["test top-1"] = f"{100 * test['accuracy']:.2f}%"
        tiles["test top-5"] = f"{100 * test['top5']:.2f}%"
        tiles["test loss"] = f"{test['loss']:.4f}"
        tiles["training time"] = duration(record.result["seconds"])
    else:
        yield "<p><b>This run is not finished.</b></p>"
    if record.epochs:
        last = record.epochs[-1]
        tiles["epochs"] = f"{last['epoch']} of {record.config['epochs']}"
        tiles["images/s"] = f"{last['images_per_second']:,.0f}"
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
        ("images_per_second", "throughput", "training images/s"),
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


def _test(test, shown):
    names = list(test["per_class"])
    yield f'<h2>On the {test["count"]:,} test images</h2><div class="figures">'
    yield figures.bars(
        test["per_class"], title="accuracy by class", x="top-1 accuracy, %"
    )
    if shown:
        right = (shown.guesses == shown.labels).astype(float)
        error = figures.calibration_error(shown.confidence, right)
        yield "<div>" + figures.calibration(shown.confidence, right)
        yield (
            f'<p class="soft">Mean confidence {shown.confidence.mean():.1%}, accuracy '
            f"{right.mean():.1%}; expected calibration error {error:.3f}.</p></div>"
        )
    yield figures.confusion(np.array(test["confusion"]), names)
    yield "</div>"


def _pictures(shown, names):
    called = lambda i: names[i] if i < len(names) else str(i)
    if len(shown.mistakes):
        yield '<h2>The most confident mistakes</h2><div class="pictures">'
        for place, picture in zip(shown.mistakes, shown.pictures, strict=True):
            guess, true = shown.guesses[place], shown.labels[place]
            sure = shown.confidence[place]
            caption = f"<b>{called(guess)}</b> {sure:.0%}<br>is {called(true)}"
            yield f"<figure>{image(picture, called(true))}{caption}</figure>"
        yield "</div>"
    yield "<h2>Training images as the network saw them</h2>"
    yield '<p class="soft">Augmented and normalised, all stretched to one range.</p>'
    yield '<div class="pictures small">'
    yield from (image(picture, "training image") for picture in shown.samples)
    yield "</div>"
    if shown.filters.shape[2] == 3:
        height, width, _, count = shown.filters.shape
        yield f"<h2>First-layer filters</h2><p class='soft'>conv1_1, {count} of "
        yield f"{height}x{width} pixels, each stretched "
        yield 'to its own range.</p><div class="pictures small">'
        for i in range(min(count, _FILTERS)):
            yield image(gallery.stretch(shown.filters[..., i]), f"filter {i}")
        yield "</div>"
