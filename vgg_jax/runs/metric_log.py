"""A run's metrics: `metrics.jsonl`, TensorBoard and, if asked for, a tracker."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from vgg_jax.files import write_atomically
from vgg_jax.runs.trackers import Tracker


class MetricLog:
    """Appends rows to `<workdir>/metrics.jsonl` and to TensorBoard event files.

    Rows of later updates and epochs are dropped first: a run that resumes writes them
    again. Write a row before the checkpoint that follows it, so that none is missing.

    Args:
        workdir: directory of the run.
        step: updates made so far.
        epochs: epochs finished so far.
        tracker: gets every value too; the run outlives it, should it fail.
    """

    def __init__(
        self, workdir: Path, *, step: int, epochs: int, tracker: Tracker | None = None
    ) -> None:
        self.workdir = workdir
        path = workdir / "metrics.jsonl"
        last = {"step": step, "epoch": epochs}
        rows = [row for row in read(workdir) if row[row["kind"]] <= last[row["kind"]]]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = open(path, "a", buffering=1)
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1 if step else None
        )
        self._tracker = tracker

    def write(self, kind: str, row: Mapping[str, float]) -> None:
        """Writes a row. `kind` is "step" or "epoch"; `row["step"]` counts updates."""
        self._file.write(json.dumps({"kind": kind, **row}) + "\n")
        self.show(kind, row)

    def show(self, kind: str, row: Mapping[str, float]) -> None:
        """Sends a row to TensorBoard and the tracker only."""
        values = {f"{kind}/{key}": x for key, x in row.items() if key != "step"}
        for key, value in values.items():
            self._board.add_scalar(key, value, int(row["step"]))
        if self._tracker:
            self._guarded(self._tracker.write, values, int(row["step"]))

    def close(self) -> None:
        """Ends the files and the tracker's run."""
        self._file.close()
        self._board.close()
        if self._tracker:
            self._guarded(self._tracker.close)

    def _guarded(self, call, *arguments):
        """Drops a tracker that fails (its network, say); the training goes on."""
        try:
            call(*arguments)
        except Exception as error:
            self._tracker = None
            logging.getLogger(__name__).error(
                "the tracker failed and gets no more values (%s); they are all in %s",
                error,
                self.workdir / "metrics.jsonl",
            )


def read(workdir: Path) -> list[dict]:
    """Returns the rows of a run; a last line cut short by a crash is left out."""
    try:
        lines = (workdir / "metrics.jsonl").read_text().split("\n")
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
