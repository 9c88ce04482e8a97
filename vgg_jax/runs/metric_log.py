"""Metrics on disk: `metrics.jsonl` and TensorBoard; and in a tracker, if asked for."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

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
    ):
        self.workdir = workdir
        path = workdir / "metrics.jsonl"
        done = {"step": step, "epoch": epochs}
        kept = [row for row in read(workdir) if row[row["kind"]] <= done[row["kind"]]]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(path, "a", buffering=1)
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1 if step else None
        )
        self._tracker = tracker

    def write(self, kind: str, row: Mapping[str, float]) -> None:
        """One row. `kind` is "step" or "epoch"; `row["step"]` counts updates."""
        self._file.write(json.dumps({"kind": kind, **row}) + "\n")
        self.show(kind, row)

    def show(self, kind: str, row: Mapping[str, float]) -> None:
        """A row for TensorBoard and the tracker only."""
        values = {f"{kind}/{key}": x for key, x in row.items() if key != "step"}
        for key, value in values.items():
            self._board.add_scalar(key, value, row["step"])
        if self._tracker:
            self._guarded(self._tracker.write, values, row["step"])

    def close(self) -> None:
        self._file.close()
        self._board.close()
        if self._tracker:
            self._guarded(self._tracker.close)

    def _guarded(self, call, *arguments):
        """A tracker that fails (its network, say) is left; the training goes on."""
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
    """The rows of a run; a last line cut short by a crash is left out."""
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


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by one rename, so that a crash leaves the old or the new one."""
    part = path.with_name(path.name + ".part")
    with open(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
