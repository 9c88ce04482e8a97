"""A run's metrics: `metrics.jsonl`, TensorBoard and, if asked for, a tracker."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from vgg_jax.files import keep_copy, write_atomically
from vgg_jax.runs import checked_json
from vgg_jax.runs.trackers import Tracker

FILE = "metrics.jsonl"
# Kind of a row -> numbers it cannot be without.
_KINDS = {"step": ("step",), "epoch": ("step", "epoch", "seconds")}


class MetricLog:
    """Appends rows to `<workdir>/metrics.jsonl` and to TensorBoard event files.

    Rows of later updates and epochs are dropped first: a run that resumes writes them
    again. Write a row before the checkpoint that follows it, so that none is missing.

    Args:
        workdir: directory of the run.
        step: updates made so far.
        epochs: epochs finished so far.
        tracker: gets every value too; the run outlives it, should it fail.
        report: receives a line where rows are damaged or missing.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        step: int,
        epochs: int,
        tracker: Tracker | None = None,
        report: Callable[[str], None] = logging.warning,
    ) -> None:
        from vgg_jax.runs import tensorboard  # needs [train]; reading rows does not

        self.workdir = workdir
        path = workdir / FILE
        rows, damaged = _parse(workdir)
        if lost := loss(workdir, epochs):
            report(lost)
        last = {"step": step, "epoch": epochs}
        kept = [row for row in rows if row[row["kind"]] <= last[row["kind"]]]
        if damaged or ((workdir / "damaged").exists() and len(kept) < len(rows)):
            keep_copy(path, workdir / "damaged")  # of the rows that go
        write_atomically(path, "".join(map(_line, kept)))
        self._file = open(path, "a", buffering=1)
        self._trackers = [tracker] if tracker else []
        self._guarded(
            lambda: self._trackers.append(
                tensorboard.opened(workdir / "tensorboard", step)
            ),
            "TensorBoard",
        )

    def write(self, kind: str, row: Mapping[str, float]) -> None:
        """Writes a row. `kind` is "step" or "epoch"; `row["step"]` counts updates.

        Raises:
            OSError: `metrics.jsonl` cannot be written.
        """
        self._file.write(_line({"kind": kind, **row}))
        self.show(kind, row)

    def show(self, kind: str, row: Mapping[str, float]) -> None:
        """Sends a row to TensorBoard and the tracker only."""
        values = {f"{kind}/{key}": x for key, x in row.items() if key != "step"}
        for tracker in list(self._trackers):
            write = lambda t=tracker: t.write(values, int(row["step"]))
            if not self._guarded(write, tracker.identity):
                self._trackers.remove(tracker)
                with contextlib.suppress(Exception):
                    tracker.close("failed")

    def close(self, ending: str = "finished") -> None:
        """Ends the files, and the tracker's run by one of `trackers.ENDINGS`."""
        self._file.close()
        for tracker in self._trackers:
            close = lambda t=tracker: t.close(ending)
            self._guarded(close, tracker.identity)

    def _guarded(self, call: Callable[[], object], name: str) -> bool:
        """Whether a tracker took it; where not (its network, a disk), the run goes on.

        It gets no more values then.
        """
        try:
            call()
        except Exception as error:
            logging.getLogger(__name__).error(
                "the tracker %s failed and gets no more values (%s); they are all in "
                "%s",
                name,
                error,
                self.workdir / FILE,
            )
            return False
        return True


def _line(row: Mapping) -> str:
    return checked_json.dumps(row) + "\n"


def loss(workdir: Path, epochs: int) -> str:
    """Returns what is damaged or missing in the log of a run; "" if nothing.

    Args:
        workdir: directory of the run.
        epochs: epochs finished so far.
    """
    rows, damaged = _parse(workdir)
    there = {row["epoch"] for row in rows if row["kind"] == "epoch"}
    missing = [str(n) for n in range(1, epochs + 1) if n not in there]
    parts = []
    if damaged:
        parts.append(f"{damaged} damaged lines are left out")
    if missing:
        parts.append(
            f"the rows of epochs {', '.join(missing)} are missing, and with them their "
            "points of the curves and their part of the training time"
        )
    said = f"{workdir / FILE}: {'; '.join(parts)}. The weights are not affected."
    return said if parts else ""


def read(workdir: Path) -> list[dict]:
    """Returns the rows of a run that are whole; see `MetricLog` for the others."""
    return _parse(workdir)[0]


def _parse(workdir: Path) -> tuple[list[dict], int]:
    """Returns the rows, and how many lines are damaged.

    A last line cut short by a crash is neither.
    """
    try:
        *lines, last = (workdir / FILE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], 0
    # A start of this version writes all rows with their sums: all have one, or none.
    since = "kind" if any(b'"crc32": ' in line for line in lines) else ""
    rows = [_row(line, since) for line in lines]
    damaged = rows.count(None)
    rows.append(_row(last, since))
    return [row for row in rows if row is not None], damaged


def _row(line: bytes, since: str) -> dict | None:
    """Returns the row of a line, or None if it is damaged."""
    try:
        row = checked_json.loads(line, since)
        numbers = [row[key] for key in _KINDS[row["kind"]]]
    except (ValueError, KeyError, TypeError):
        return None
    return row if all(isinstance(x, int | float) for x in numbers) else None
