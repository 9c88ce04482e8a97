"""What a user sees of a run: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vgg_jax.data.datasets import Dataset
from vgg_jax.training.columns import GAP, duration, epoch_lines, fitting, percent
from vgg_jax.training.config import Config

_LOG_SECONDS = 15.0  # between plain lines
_REFRESH_SECONDS = 0.1  # between updates of the bar
_SMOOTHING = 0.9  # of the rate, loss and accuracy shown
_CLASS_BAR = 30  # characters of a full bar in the table of classes
_NAME = 24  # characters of a class name in that table
_BAR, _LEAST_BAR = 24, 6  # characters of the live bar


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
        self._headings = ""  # shown last
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """Prints a line that stays, above the bar."""
        say(self._console, text, style)

    def status(self, text: str) -> None:
        """Shows what is going on before the first step; later, nothing."""
        if not self._rate:
            self._show(text, 0, 1, {})

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
        parts = {  # how spare each is on a narrow terminal (`columns.fitting`)
            f"{step}/{self._steps}": 1,
            f"loss {loss:.3f}": 3,
            f"acc {percent(accuracy)}": 2,
            f"lr {metrics['learning_rate']:.2g}": 7,
            f"{self._rate:,.0f} img/s": 6,
            f"{duration(left * seconds)} left": 4,
        }
        self._show(f"epoch {epoch}/{self._epochs}", step, self._steps, parts)

    def evaluate(self, what: str, count: int, total: int) -> None:
        """Shows that `count` of `total` images of the split `what` are evaluated."""
        self._last_step = -np.inf  # the next step's time is not a training time
        self._show(what, count, total, {f"{count:,}/{total:,} images": 1})

    def _smooth(self, key, value):
        old = self._means.get(key, float(value))
        self._means[key] = _SMOOTHING * old + (1 - _SMOOTHING) * float(value)
        return self._means[key]

    def _show(self, what, count, total, parts):
        live = self._console.is_terminal
        wait = _REFRESH_SECONDS if live else _LOG_SECONDS
        now = self._clock()
        if now - self._last_shown < wait:
            return
        self._last_shown = now
        if live:
            self._live.update(self._line(what, count, total, parts), refresh=True)
        else:
            self.say("  ".join([what, *parts]))

    def _line(self, what, count, total, parts):
        """One line with a bar, or as much of it as the terminal has room for."""
        room, texts = self._console.width, [what, "", *parts]
        widths = [len(text) for text in texts]
        widths[1] = _LEAST_BAR
        sizes = list(zip(widths, [0, 5, *parts.values()], strict=True))
        kept = fitting(sizes, room)
        used = sum(widths[i] for i in kept) + GAP * (len(kept) - 1)
        width = min(_BAR, _LEAST_BAR + room - used)
        bar = ProgressBar(total=total, completed=count, width=width)
        line = Table.grid(padding=(0, GAP))
        for _ in kept:
            line.add_column(no_wrap=True)
        line.add_row(*(texts[i] or bar for i in kept))
        return line

    def row(self, row: Mapping, best: bool) -> None:
        """Shows an epoch as a row; `best` marks the best validation so far."""
        room = self._console.width if self._console.is_terminal else np.inf
        shown = {**row, "epochs": self._epochs, "best": best}
        headings, line = epoch_lines(shown, room)
        if headings != self._headings:  # the first row, or another width
            self.say(headings, style="bold")
            self._headings = headings
        self.say(line)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints a plain line: no markup, no guessing at colours."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def show_start(
    console: Console,
    config: Config,
    workdir: Path,
    dataset: Dataset,
    params: Any,
    place: str,
    init: str = "",
) -> None:
    """Says what is about to be trained, on what, where; and from which weights."""
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    height, width, _ = dataset.train.image_shape
    held_out = len(dataset.validation) if dataset.validation else 0
    say(
        console,
        f"VGG configuration {config.model.variant}, {count:,} parameters, "
        f"{config.model.dtype} on {place}",
        style="bold",
    )
    if init:
        say(console, init)
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
    width = min(_NAME, max(map(cell_len, test["per_class"]), default=0))
    room = console.width - width - 12 if console.is_terminal else _CLASS_BAR
    full = max(0, min(_CLASS_BAR, room))
    for name, accuracy in test["per_class"].items():
        cut = Text(name)
        cut.truncate(width, overflow="ellipsis")
        cut.align("right", width)
        bar = "█" * round(full * accuracy)
        say(console, f"  {cut}  {percent(accuracy):>6}  {bar}")
