"""What a user sees of a run: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vgg_jax import backend
from vgg_jax.data.datasets import Dataset
from vgg_jax.training.config import Config

_LOG_SECONDS = 15.0  # between plain lines
_REFRESH_SECONDS = 0.1  # between updates of the bar
_SMOOTHING = 0.9  # of the rate, loss and accuracy shown
_CLASS_BAR = 30  # characters of a full bar in the table of classes

# Epoch table: heading, width, how a row's value is shown.
_COLUMNS = (
    ("epoch", 7, lambda r: f"{r['epoch']}/{r['epochs']}"),
    ("lr", 8, lambda r: f"{r['learning_rate']:.2g}"),
    ("train loss", 10, lambda r: f"{r['train_loss']:.4f}"),
    ("acc", 6, lambda r: percent(r["train_accuracy"])),
    ("val loss", 9, lambda r: f"{r['val_loss']:.4f}" if "val_loss" in r else "-"),
    ("acc", 6, lambda r: percent(r["val_accuracy"]) if "val_loss" in r else "-"),
    ("images/s", 8, lambda r: f"{r['images_per_second']:,.0f}"),
    ("time", 8, lambda r: duration(r["seconds"])),
)


def percent(share: float) -> str:
    """Returns a share as text.

    >>> percent(0.5)
    '50.0%'
    """
    return f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """Returns a duration as text; `?` when it cannot be known.

    >>> [duration(s) for s in (7, 185, 7_620, 356_400, float("inf"))]
    ['7s', '3m05s', '2h07m', '4d03h', '?']
    """
    if not np.isfinite(seconds):
        return "?"
    seconds = max(0, round(seconds))
    for unit, small, size, part in (("d", "h", 86400, 3600), ("h", "m", 3600, 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // part:02d}{small}"
    return f"{seconds // 60}m{seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


class Display:
    """Shows a run on `console`. Use as a context manager.

    Args:
        console: where it is shown; a terminal gets the live bar.
        epochs: length of the run.
        steps_per_epoch: training steps per epoch.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        epochs: int,
        steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._clock = clock
        self._rate = 0.0  # images/s, smoothed
        self._means: dict[str, float] = {}
        self._last_shown = self._last_step = -np.inf
        self._header_shown = False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=1, text="")

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """Prints a line that stays, above the bar."""
        say(self._console, text, style)

    def status(self, text: str) -> None:
        """Shows what is going on before the first step; later, nothing."""
        if not self._rate:
            self._show(text, 0, 1, "")

    def train(self, epoch: int, step: int, images: int, metrics: Mapping) -> None:
        """Shows a finished training step.

        Args:
            epoch: number of the epoch, from 1.
            step: number of steps of this epoch that are finished.
            images: number of images in this step.
            metrics: `loss`, `accuracy`, `learning_rate` of the step.
        """
        now = self._clock()
        if np.isfinite(self._last_step) and now > self._last_step:
            self._rate = self._smooth("rate", images / (now - self._last_step))
        self._last_step = now
        loss = self._smooth("loss", metrics["loss"])
        accuracy = self._smooth("accuracy", metrics["accuracy"])
        seconds = images / self._rate if self._rate else np.nan
        left = (self._epochs - epoch) * self._steps + self._steps - step
        text = (
            f"{step}/{self._steps}  loss {loss:.3f}  acc {percent(accuracy)}  "
            f"lr {metrics['learning_rate']:.2g}  {self._rate:,.0f} img/s  "
            f"{duration(left * seconds)} left"
        )
        self._show(f"epoch {epoch}/{self._epochs}", step, self._steps, text)

    def evaluate(self, what: str, count: int, total: int) -> None:
        """Shows that `count` of `total` images of the split `what` are evaluated."""
        self._last_step = -np.inf  # the next step's time is not a training time
        self._show(what, count, total, f"{count:,}/{total:,} images")

    def _smooth(self, key, value):
        old = self._means.get(key, float(value))
        self._means[key] = _SMOOTHING * old + (1 - _SMOOTHING) * float(value)
        return self._means[key]

    def _show(self, what, count, total, text):
        live = self._console.is_terminal
        wait = _REFRESH_SECONDS if live else _LOG_SECONDS
        now = self._clock()
        if now - self._last_shown < wait:
            return
        self._last_shown = now
        if live:
            self._bar.update(
                self._task, description=what, completed=count, total=total, text=text
            )
            self._bar.refresh()
        else:
            self.say(f"{what}  {text}".strip())

    def row(self, row: Mapping, best: bool) -> None:
        """Shows an epoch as a row; `best` marks the best validation so far."""
        if not self._header_shown:
            heads = "  ".join(f"{name:>{width}}" for name, width, _ in _COLUMNS)
            self.say(heads, style="bold")
            self._header_shown = True
        shown = {**row, "epochs": self._epochs}
        cells = (f"{value(shown):>{width}}" for _, width, value in _COLUMNS)
        self.say("  ".join(cells) + ("  best" if best else ""))


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints a plain line: no markup, no guessing at colours."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def show_start(
    console: Console, config: Config, workdir: Path, dataset: Dataset, params: Any
) -> None:
    """Says what is about to be trained, on what, where."""
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    height, width, _ = dataset.train.image_shape
    held_out = len(dataset.validation) if dataset.validation else 0
    say(
        console,
        f"VGG configuration {config.model.variant}, {count:,} parameters, "
        f"{config.model.dtype} on {backend.describe()}",
        style="bold",
    )
    say(
        console,
        f"{dataset.name}: {len(dataset.train):,} training, {held_out:,} validation, "
        f"{len(dataset.test):,} test images of {height}x{width}",
    )
    say(
        console,
        f"{config.epochs} epochs, batch {config.batch_size}, lr {config.lr:g} "
        f"({config.schedule.name}), into {workdir}",
    )


def show_result(console: Console, result: Mapping) -> None:
    """Says the final numbers, and draws a bar for each class."""
    test = result["test"]
    say(
        console,
        f"test top-1 {100 * test['accuracy']:.2f}%  top-5 {100 * test['top5']:.2f}%  "
        f"loss {test['loss']:.4f}  on {test['count']:,} images, with the "
        f"{result['checkpoint']} weights (epoch {result['epoch']})",
        style="bold green",
    )
    width = max(map(len, test["per_class"]), default=0)
    for name, accuracy in test["per_class"].items():
        bar = "█" * round(_CLASS_BAR * accuracy)
        say(console, f"  {name:>{width}}  {percent(accuracy):>6}  {bar}")
