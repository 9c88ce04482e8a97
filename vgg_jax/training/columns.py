"""Numbers as short texts, in as many columns as a line of a terminal has room for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

GAP = 2  # characters between columns


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


class Column(NamedTuple):
    """A column of the table of epochs.

    Attributes:
        head: its heading.
        width: in characters.
        spare: a narrow terminal loses the column with the highest first; 0 stays.
        text: shows a row of `metrics.jsonl` with `epochs` and `best`; empty where it
            has nothing to show.
    """

    head: str
    width: int
    spare: int
    text: Callable[[Mapping[str, Any]], str]


EPOCHS = (
    Column("epoch", 7, 0, lambda r: f"{r['epoch']}/{r['epochs']}"),
    Column("lr", 8, 6, lambda r: f"{r['learning_rate']:.2g}"),
    Column("train loss", 10, 4, lambda r: f"{r['train_loss']:.4f}"),
    Column("acc", 6, 5, lambda r: percent(r["train_accuracy"])),
    Column("val loss", 9, 3, lambda r: _validated(r, "val_loss", "{:.4f}".format)),
    Column("acc", 6, 1, lambda r: _validated(r, "val_accuracy", percent)),
    Column("images/s", 8, 8, lambda r: f"{r['images_per_second']:,.0f}"),
    Column("time", 8, 7, lambda r: duration(r["seconds"])),
    Column("", 4, 2, lambda r: "best" if r["best"] else ""),
)
_NOTHING = "-"  # shown where a run has no validation; such a column goes first


def _validated(row: Mapping[str, Any], key: str, text: Callable[[float], str]) -> str:
    return text(row[key]) if key in row else _NOTHING


def fitting(columns: Sequence[tuple[int, int]], room: float) -> list[int]:
    """Returns the places of the columns that fit beside each other in a line.

    Args:
        columns: the width of each, in characters, and how spare it is: the highest
            goes first, and of equals the first; 0 stays.
        room: characters in a line.

    >>> fitting([(7, 0), (8, 2), (6, 1)], room=20)
    [0, 2]
    """
    kept = list(range(len(columns)))
    while sum(columns[i][0] + GAP for i in kept) - GAP > room:
        spare = {i: columns[i][1] for i in kept}
        if not any(spare.values()):
            break
        kept.remove(max(kept, key=spare.__getitem__))
    return kept


def epoch_lines(row: Mapping[str, Any], room: float) -> tuple[str, str]:
    """Returns the headings of the table of epochs and one of its rows.

    Args:
        row: of an epoch in `metrics.jsonl`, and "epochs", the length of the run, and
            "best", whether it is the best so far.
        room: characters in a line; infinity where it may be of any length.
    """
    widest = len("{0}/{0}".format(row["epochs"]))
    texts = [column.text(row) for column in EPOCHS]
    sizes = [
        (column.width if column.spare else max(column.width, widest),
         column.spare + len(EPOCHS) * (text == _NOTHING))
        for column, text in zip(EPOCHS, texts, strict=True)
    ]  # fmt: skip
    kept = fitting(sizes, room)
    line = lambda cells: (" " * GAP).join(f"{cells[i]:>{sizes[i][0]}}" for i in kept)
    return line([column.head for column in EPOCHS]).rstrip(), line(texts).rstrip()
