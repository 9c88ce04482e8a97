"""The run: train, validate, keep checkpoints, test once at the end."""

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from vgg_jax.data import batches
from vgg_jax.errors import RunError
from vgg_jax.files import write_atomically
from vgg_jax.runs import report
from vgg_jax.runs.checkpoint import NotFinite, number
from vgg_jax.runs.workdir import claim
from vgg_jax.training import progress, step
from vgg_jax.training.config import resolve
from vgg_jax.training.final_evaluation import final_evaluation
from vgg_jax.training.session import Session, opened
from vgg_jax.training.step import TrainState

_IN_FLIGHT = 1  # steps dispatched ahead of the one whose metrics are read


class Stopped(RunError):
    """SIGINT or SIGTERM ended the run; its state is saved."""

    label = "stopped"

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


def train(
    config: ConfigDict, workdir: str | Path, console: Console | None = None
) -> dict[str, Any]:
    """Trains, or resumes, or finds finished, the run of a config in its workdir.

    Args:
        config: as a file of `configs/` returns it.
        workdir: directory of the run; created if missing.
        console: where progress goes; the terminal by default.

    Returns:
        The contents of `<workdir>/result.json`.

    Raises:
        ConfigError: a value in the config is wrong, or the workdir is another run's.
        RunError: the machine, the data or a file is wrong; what was saved stays.
        Stopped: a signal came; the same call resumes.

    >>> import tempfile
    >>> from configs import quickstart
    >>> config = quickstart.get_config()
    >>> config.update_from_flattened_dict({
    ...     "epochs": 1, "schedule.warmup_epochs": 0.0, "batch_size": 16,
    ...     "model.variant": "conv3-8 | conv3-8 |", "data.train": "train[:64]"})
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     result = train(config, directory, Console(quiet=True))
    >>> result["test"]["count"]
    1000
    """
    console, workdir = console or Console(), Path(workdir)
    resolved = resolve(config)
    with claim(workdir, dict(resolved.fields)):
        file = workdir / "result.json"
        if file.exists():
            progress.say(console, f"{workdir} is finished; its result:")
            result = json.loads(file.read_text())
        else:
            with opened(resolved, workdir, console) as (session, state):
                result = final_evaluation(session, _fit(session, state))
                if result is None:
                    raise _stopped(session, "before the test")
                write_atomically(file, json.dumps(result, indent=2) + "\n")
                report.write(workdir)
        progress.show_result(console, result)
        progress.say(console, f"report: {workdir / report.FILE}")
        return result


def _fit(session: Session, state: TrainState) -> TrainState:
    """Trains to the last epoch; returns the final state, saved."""
    try:
        while state.epochs < session.config.epochs and not session.stop():
            start = time.monotonic()
            seen = float(state.sums.count)  # of this epoch, before a stop
            state = _train_epoch(session, state)
            if not session.stop():
                state = _end_epoch(session, state, seen, start)
        session.checkpoints.wait()
        if session.stop() and session.checkpoints.latest() != number(state):
            session.save(state)
    except NotFinite as error:
        session.checkpoints.wait()
        good = session.checkpoints.latest()
        where = f"is {session.checkpoints.directory / str(good)}" if good else "is none"
        raise NotFinite(
            f"{error}; the last good checkpoint {where}. Lower lr (now "
            f"{session.config.lr:g}), warm up, or set optimizer.clip_norm"
        ) from error
    session.checkpoints.wait()
    if session.stop():
        raise _stopped(session, f"after step {state.step:,}, saved")
    return state


def _stopped(session: Session, when: str) -> Stopped:
    return Stopped(f"{when}; the same command resumes it", session.stop.signal)


def _train_epoch(session: Session, state: TrainState) -> TrainState:
    """Trains the rest of the epoch, or as much of it as a signal leaves."""
    config = session.config
    epoch = int(state.epochs)
    start = int(state.step) - epoch * session.steps_per_epoch
    pending = deque()  # (step of the epoch, images, metrics on the device)
    session.display.status("compiling the training step")
    epoch_batches = batches.training(
        session.dataset.train,
        seed=config.seed,
        batch_size=config.batch_size,
        epoch=epoch,
        start=start,
        remainder=config.remainder,
    )
    for i, batch in enumerate(epoch_batches, start + 1):
        session.profile()
        state, metrics = session.train_step(state, batch)
        pending.append((i, len(batch.labels), metrics))
        _read(session, epoch, pending, leave=_IN_FLIGHT)
        if session.stop():
            break
        if time.monotonic() - session.saved_at > 60 * config.checkpoint.minutes:
            _read(session, epoch, pending, leave=0)
            session.save(state)
    _read(session, epoch, pending, leave=0)
    return state


def _read(session: Session, epoch: int, pending: deque, leave: int) -> None:
    """Shows and logs the oldest steps under way until `leave` are left."""
    while len(pending) > leave:
        i, images, metrics = pending.popleft()
        metrics = {key: float(value) for key, value in metrics.items()}
        updates = epoch * session.steps_per_epoch + i
        if not np.isfinite(metrics["loss"]):
            raise NotFinite(
                f"the loss is {metrics['loss']} at step {updates} (epoch {epoch + 1})"
            )
        session.display.train(epoch + 1, i, images, metrics)
        if updates % session.config.log.every_steps == 0:
            session.metric_log.write("step", {"step": updates, **metrics})


def _end_epoch(
    session: Session, state: TrainState, seen: float, start: float
) -> TrainState:
    """Validates, drops the rate, logs, saves; nothing of it if a signal comes."""
    seconds = time.monotonic() - start
    images = float(state.sums.count) - seen
    values = {f"train_{k}": v for k, v in state.sums.means().items()}
    validation = None
    if session.dataset.validation is not None:
        validation = session.evaluate("validation", state.variables)
        if validation is None:
            return state
        for key in ("loss", "accuracy", "top5"):
            values[f"val_{key}"] = getattr(validation, key)
    rate = step.learning_rate(session.recipe, state.step - 1, state.plateau)
    row = {
        "step": int(state.step),
        "epoch": int(state.epochs) + 1,
        "learning_rate": float(rate),
        **values,
        "images_per_second": images / max(seconds, 1e-9),
        "seconds": time.monotonic() - start,
    }
    state = step.end_epoch(session.recipe, state, values)
    session.metric_log.write("epoch", row)
    best = session.save(state, validation and validation._asdict())
    session.display.row(row, best=best)
    return state
