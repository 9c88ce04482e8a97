"""A run read back from its workdir."""

import json
from pathlib import Path

from vgg_jax.errors import RunError
from vgg_jax.renamed import modern
from vgg_jax.runs import metric_log


class RunRecord:
    """A run as its workdir holds it, finished or not.

    Attributes:
        workdir: directory of the run.
        config: its fields, nested plain values, old names replaced.
        epochs: rows of `metrics.jsonl`, one per epoch.
        result: contents of `result.json`; None before the end.

    Raises:
        RunError: there is no run in the directory.
    """

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        try:
            text = (workdir / "config.json").read_text()
        except FileNotFoundError as error:
            raise RunError(
                f"{workdir} holds no run (no config.json): name the workdir of a run"
            ) from error
        self.config = modern(json.loads(text))
        rows = metric_log.read(workdir)
        self.epochs = [row for row in rows if row["kind"] == "epoch"]
        file = workdir / "result.json"
        self.result = json.loads(file.read_text()) if file.exists() else None

    @property
    def test_accuracy(self) -> float:
        """Top-1 accuracy on the test split, in [0, 1].

        Raises:
            RunError: the run is not finished.
        """
        if not self.result:
            raise RunError(f"{self.workdir} is not finished: run its command again")
        return self.result["test"]["accuracy"]

    @property
    def name(self) -> str:
        """Name of the workdir, by which pages call the run."""
        return self.workdir.name

    def column(self, key: str) -> tuple[list[float], list[float]]:
        """Returns epochs and the values of `key` in their rows, where it is there."""
        rows = [row for row in self.epochs if key in row]
        return [row["epoch"] for row in rows], [row[key] for row in rows]

    def drops(self) -> list[float]:
        """Returns the epochs after which the plateau reduced the learning rate."""
        if self.config["schedule"]["name"] != "plateau":
            return []
        at, rate = self.column("learning_rate")
        pairs = zip(at, rate, rate[1:], strict=False)
        return [epoch + 0.5 for epoch, old, new in pairs if new < old]
