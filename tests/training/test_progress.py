"""What a user sees of a run: rows that stay, a live line, plain lines elsewhere."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from vgg_jax.training import progress

ROW = {
    "epoch": 200,
    "learning_rate": 0.00012,
    "train_loss": 1.2345,
    "train_accuracy": 0.1234,
    "val_loss": 71.2458,
    "val_accuracy": 0.5678,
    "images_per_second": 12_345.6,
    "seconds": 7_620,
}
UNVALIDATED = {key: ROW[key] for key in ROW if not key.startswith("val_")}
TEST = {"accuracy": 0.5, "top5": 1.0, "loss": 1.0, "count": 4}


def record(width, row=ROW, terminal=True, epochs=300):
    """The lines of a run of two epochs, as a terminal of `width` gets them.

    Time passes at a second per step, 64 images each.
    """
    text, clock = io.StringIO(), iter(range(10**6))
    console = Console(file=text, width=width, height=25, force_terminal=terminal)
    display = progress.Display(
        console, epochs=epochs, steps_per_epoch=312, clock=lambda: next(clock)
    )
    metrics = {"loss": 1.234, "accuracy": 0.5, "learning_rate": 0.0123}
    with display:
        display.status("compiling the training step")
        for step in range(1, 20):
            display.train(200, step, 64, metrics)
        display.evaluate("validation", 500, 10_000)
        display.row(row, best=False)
        display.row(row | {"epoch": 201}, best=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.parametrize("row", [ROW, UNVALIDATED], ids=["validated", "unvalidated"])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_nothing_wraps_and_the_epoch_is_whole(width, row):
    lines = record(width, row)
    assert max(map(cell_len, lines)) <= width
    rows = [line for line in lines if re.match(r" *20[01]/300 ", line)]
    assert len(rows) == 2 and rows[1].endswith("best")
    live = [line for line in lines if line.startswith("epoch 200/300")]
    assert live and all(re.search(r" \d+/312( |$)", line) for line in live)


@pytest.mark.parametrize(
    "width, headings",
    [
        (40, "epoch val loss acc"),
        (60, "epoch train loss acc val loss acc"),
        (80, "epoch lr train loss acc val loss acc time"),
        (120, "epoch lr train loss acc val loss acc images/s time"),
    ],
)
def test_a_narrow_terminal_loses_the_least_important_columns(width, headings):
    heads = [line for line in record(width) if re.fullmatch(r" *epoch\D*", line)]
    assert [line.split() for line in heads] == [headings.split()]


def test_what_a_log_file_gets():
    """Whole rows whatever the width, and a line every 15 seconds."""
    assert (
        record(40, terminal=False)
        == """\
compiling the training step
epoch 200/300  8/312  loss 1.234  acc 50.0%  lr 0.012  32 img/s  17h30m left
epoch 200/300  16/312  loss 1.234  acc 50.0%  lr 0.012  32 img/s  17h29m left
  epoch        lr  train loss     acc   val loss     acc  images/s      time
200/300   0.00012      1.2345   12.3%    71.2458   56.8%    12,346     2h07m
201/300   0.00012      1.2345   12.3%    71.2458   56.8%    12,346     2h07m  best
""".splitlines()
    )


def test_a_terminal_that_is_resized_gets_new_headings():
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    display = progress.Display(console, epochs=300, steps_per_epoch=1)
    display.row(ROW, best=False)
    console.width = 60
    display.row(ROW, best=False)
    display.row(ROW, best=False)
    assert text.getvalue().count("epoch") == 2


@pytest.mark.parametrize("epochs", [9, 123_456])
def test_headings_stand_above_their_values(epochs):
    """Columns end where their headings end, however long the run is."""
    row = {**ROW, "epoch": epochs}
    lines = record(120, row, terminal=False, epochs=epochs)
    heads, values = lines[-3:-1]
    ends = lambda line: [match.end() for match in re.finditer(r"\S+", line)]
    joined = heads.replace("train loss", "train.loss").replace("val loss", "val.loss")
    assert ends(joined) == ends(values)


@pytest.mark.parametrize("width", [40, 60, 120])
def test_the_bars_of_classes_fit(width):
    shown = {"cat": 1.0, "x" * 300: 0.5, "\u732b" * 60: 0.0}
    result = {"test": TEST | {"per_class": shown}, "checkpoint": "last", "epoch": 3}
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, no_color=True)
    progress.show_result(console, result)
    first, second, third = text.getvalue().splitlines()[-3:]
    assert max(map(cell_len, (first, second, third))) <= width
    assert first.count("\u2588") == min(30, width - 36)
    assert second.count("\u2588") == round(min(30, width - 36) / 2)
    assert "x\u2026   50.0%" in second and "\u732b \u2026    0.0%" in third


def test_steps_between_epochs_are_no_training_time():
    """The rate is that of steps; validation in between does not slow it."""
    text, times = io.StringIO(), iter([0, 0, 1, 1, 100, 100, 200, 200, 201, 201])
    console = Console(file=text, width=120)
    display = progress.Display(
        console, epochs=2, steps_per_epoch=2, clock=lambda: next(times)
    )
    metrics = {"loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1}
    display.train(1, 1, 64, metrics)
    display.train(1, 2, 64, metrics)
    display.evaluate("validation", 10, 10)
    display.train(2, 1, 64, metrics)
    assert "2/2" not in text.getvalue().split("validation")[0]  # within 15 seconds
    assert "64 img/s  1s left" in text.getvalue().splitlines()[-1]
