"""A run read back from its workdir."""

from pathlib import Path
from typing import Any

from vgg_jax.errors import RunError
from vgg_jax.renamed import modern
from vgg_jax.runs import checked_json, checkpoint_record, metric_log
from vgg_jax.runs.workdir import CHECKPOINTS, CONFIG

RESULT = "result.json"
REPORT = "report.html"


def is_trained(workdir: Path) -> bool:
    """Returns whether there is a run whose last epoch is behind it, tested or not."""
    return (workdir / CONFIG).exists() and RunRecord(workdir).trained


class RunRecord:
    """A run as its workdir holds it, finished or not.

    Attributes:
        workdir: directory of the run.
        config: its fields, nested plain values, old names replaced.
        epochs: rows of `metrics.jsonl`, one per epoch.
        result: contents of `result.json`; None before the end.

    Raises:
        RunError: there is no run in the directory, or a file of it is damaged.
    """

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        config = _read(workdir / CONFIG)
        if config is None:
            raise RunError(
                f"{workdir} holds no run (no {CONFIG}): name the workdir of a run"
            )
        self.config = modern(config)
        rows = metric_log.read(workdir)
        self.epochs = [row for row in rows if row["kind"] == "epoch"]
        self.result = _read(workdir / RESULT, since="classes")

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
    def trained(self) -> bool:
        """Whether its last epoch is behind it, and saved, tested or not."""
        if self.result is not None or not self.epochs:
            return self.result is not None
        epochs, step = (self.epochs[-1][key] for key in ("epoch", "step"))
        # The row comes first: a full disk or a kill may have come between.
        saved = checkpoint_record.latest(self.workdir / CHECKPOINTS) or 0
        return epochs >= self.config["epochs"] and saved >= step + epochs

    @property
    def best_validation(self) -> float | None:
        """Best top-1 accuracy on the validation split, in [0, 1]; None without one.

        Raises:
            RunError: rows of its epochs are damaged or missing.
        """
        last = self.epochs[-1]["epoch"] if self.epochs else 0
        if lost := metric_log.loss(self.workdir, last):
            raise RunError(f"{lost} Remove {self.workdir} to train and rank it again.")
        return max(self.column("val_accuracy")[1], default=None)

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


def _read(file: Path, since: str = "") -> dict[str, Any] | None:
    """Returns the contents of a file of a run; None if there is none."""
    try:
        return checked_json.loads(file.read_bytes(), since)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(
            f"{file} is damaged ({error}): run the command that trained it again, "
            "which writes it anew"
        ) from error
