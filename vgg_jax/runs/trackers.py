"""Experiment trackers that a run also writes to: Weights & Biases, MLflow.

Asked for by `log.tracker`; each is imported only then, and is not a requirement. They
are configured by their own environment (`WANDB_MODE`, `WANDB_PROJECT`,
`MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`).
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.files import write_atomically

_FILE = "tracker-{}.txt"  # in the workdir: identity of the run there
_PROJECT = "vgg_jax"
# How a run ends: as it should; by an error, divergence included; by a signal, saved.
# Each in MLflow's words, and as the exit status by which W&B tells good from failed.
ENDINGS = {
    "finished": ("FINISHED", 0),
    "failed": ("FAILED", 1),
    "stopped": ("KILLED", 130),
}


class Tracker(NamedTuple):
    """One run in a tracker.

    Attributes:
        identity: name of the run there.
        write: takes values by name and the number of updates made.
        close: ends the run there; takes one of `ENDINGS`.
    """

    identity: str
    write: Callable[[Mapping[str, float], int], None]
    close: Callable[[str], None]


def _wandb(name, fields, identity, workdir):
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        name=name,
        config=fields,
        id=identity,
        resume="allow",
        dir=str(workdir),
    )
    return Tracker(
        run.id,
        lambda values, step: run.log(values, step=step),
        lambda ending: run.finish(exit_code=ENDINGS[ending][1]),
    )


def _mlflow(name, fields, identity, workdir):
    del workdir
    import mlflow

    client = mlflow.MlflowClient()
    if identity is None:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        known = client.get_experiment_by_name(experiment)
        parent = known.experiment_id if known else client.create_experiment(experiment)
        identity = client.create_run(parent, run_name=name).info.run_id
        for field, value in fields.items():
            client.log_param(identity, field, value)
    else:
        client.update_run(identity, "RUNNING")

    def write(values, step):
        for key, value in values.items():
            client.log_metric(identity, key, value, step=step)

    def close(ending):
        client.set_terminated(identity, ENDINGS[ending][0])

    return Tracker(identity, write, close)


TRACKERS = {"none": None, "wandb": _wandb, "mlflow": _mlflow}


def check(name: str) -> None:
    """Checks that a tracker is installed.

    Raises:
        ConfigError: it is not.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ConfigError(
            f"log.tracker={name!r} is not installed here: pip install {name}, or set "
            "log.tracker=none"
        )


def opened(name: str, workdir: Path, fields: Mapping[str, object]) -> Tracker | None:
    """Returns the tracker's run that belongs to a workdir, started or resumed.

    Args:
        name: a key of `TRACKERS`.
        workdir: directory of the run.
        fields: the config, flat.

    Raises:
        RunError: the tracker cannot be reached or refuses.
    """
    if name == "none":
        return None
    file = workdir / _FILE.format(name)
    known = (file.read_text() if file.exists() else "") or None
    try:
        tracker = TRACKERS[name](workdir.name, dict(fields), known, workdir)
    except Exception as error:
        raise RunError(
            f"log.tracker={name!r} cannot be opened ({error}): mend it, or go on "
            "without it by --config.log.tracker=none"
        ) from error
    write_atomically(file, tracker.identity)
    return tracker
