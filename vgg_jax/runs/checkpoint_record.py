"""What is kept beside a checkpoint's arrays: all that a decision rests on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.errors import RunError
from vgg_jax.runs import manifest

ITEM = "record"  # Orbax's name for it: a directory of the checkpoint


class Damaged(RunError):
    """A checkpoint's files are not those that were written."""


class Record(NamedTuple):
    """What is known of a checkpoint without reading its arrays.

    Attributes:
        crc32: of its arrays, in order.
        metrics: of the validation split; None for one inside an epoch.
        seconds: spent on the epoch that it is inside of.
        config: fields of the run, nested; empty if not known (version 0.1).
        data: what it was trained on (`data.description`); empty if not known.
        environment: device and versions that wrote it; empty if not known.
        init: the network that the run started from, "path", "sha256" and
            "preprocessing"; empty where it started from random weights.
    """

    crc32: int
    metrics: Mapping[str, float] | None = None
    seconds: float = 0.0
    config: Mapping[str, Any] = {}
    data: Mapping[str, Any] = {}
    environment: Mapping[str, str] = {}
    init: Mapping[str, Any] = {}


def numbers(directory: Path) -> list[int]:
    """Returns the numbers of a directory's complete checkpoints, rising."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def latest(directory: Path) -> int | None:
    """Returns the newest complete checkpoint of a directory, or None."""
    return max(numbers(directory), default=None)


def quality(metrics: Mapping[str, float], monitor: str) -> float:
    """Returns a number that is higher for a better checkpoint.

    Args:
        metrics: of the validation split.
        monitor: key of the one that decides; "loss" is best when low, everything else
            when high.
    """
    value = metrics[monitor]
    if not np.isfinite(value):
        return -np.inf
    return -value if monitor == "loss" else value


def read(checkpoint: Path) -> Record:
    """Returns the record of a checkpoint, a directory of Orbax.

    Raises:
        Damaged: it is missing, or its files are not those that were written.
        OSError: it is there and cannot be read.
    """
    name = f"checkpoint {checkpoint.name}"
    if not (checkpoint / manifest.FILE).exists():
        return _read_old(checkpoint, name)
    if problem := manifest.damage(checkpoint, only=f"{ITEM}/"):
        raise Damaged(f"{name}: {problem}")
    return Record(**json.loads((checkpoint / ITEM / "metadata").read_bytes()))


def _read_old(checkpoint: Path, name: str) -> Record:
    """Reads what version 0.1 kept, which had no list of files."""
    try:
        crc = json.loads((checkpoint / "crc" / "metadata").read_bytes())["crc32"]
        metrics = None
        if (checkpoint / "metrics").exists():
            metrics = json.loads((checkpoint / "metrics" / "metrics").read_bytes())
            metrics = {key: float(metrics[key]) for key in ("loss", "accuracy")}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{name}: {Path(error.filename).name} is missing") from error
    except (ValueError, LookupError, TypeError) as error:
        raise Damaged(f"{name}: its record is damaged ({error})") from error
    return Record(crc, metrics)
