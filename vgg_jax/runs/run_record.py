"""What a workdir holds of its run, read back."""

import json
from pathlib import Path

from vgg_jax.errors import RunError
from vgg_jax.runs import metric_log as log


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
