"""The run: train, validate, keep checkpoints, test once at the end."""

import json
import time
from collections import deque
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from vgg_jax import backend
from vgg_jax.data import batches
from vgg_jax.errors import RunError
from vgg_jax.evaluation import metrics
from vgg_jax.runs import gallery, report
from vgg_jax.runs import metric_log as log_lib
from vgg_jax.runs import workdir as workdir_lib
from vgg_jax.runs.checkpoint import NotFinite, number
from vgg_jax.training import config as config_lib
from vgg_jax.training import progress, step
from vgg_jax.training.session import opened

_IN_FLIGHT = 1  # steps dispatched ahead of the one whose metrics are read


class Stopped(RunError):
    """SIGINT or SIGTERM ended the run; its state is saved."""

    label = "stopped"

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.exit_code = 128 + signal


def train(config: ConfigDict, workdir: Path, console: Console | None = None) -> dict:
    """Trains, or resumes, or finds finished, the run of `config` in `workdir`.

    Returns:
        The contents of `<workdir>/result.json`.

    Raises:
        ConfigError, RunError: see `errors`; what was saved stays.
        Stopped: by a signal; the same call resumes.
    """
    console = console or Console()
    config = config_lib.resolve(config)
    with workdir_lib.claim(workdir, json.loads(config.to_json())):
        file = workdir / "result.json"
        if file.exists():
            progress.say(console, f"{workdir} is finished; its result:")
            result = json.loads(file.read_text())
        else:
            with opened(config, workdir, console) as (run, state):
                result = _test(run, _fit(run, state))
                log_lib.write_atomically(file, json.dumps(result, indent=2) + "\n")
                report.write(workdir)
        progress.show_result(console, result)
        progress.say(console, f"report: {workdir / report.FILE}")
        return result


def _fit(run, state):
    """Trains to the last epoch; returns the final state, saved."""
    try:
        while state.epochs < run.config.epochs and not run.stop():
            start = time.monotonic()
            seen = float(state.sums.count)  # of this epoch, before a stop
            state = _train_epoch(run, state)
            if not run.stop():
                state = _end_epoch(run, state, seen, start)
        run.checkpoints.wait()
        if run.stop() and run.checkpoints.latest() != number(state):
            run.save(state)
    except NotFinite as error:
        run.checkpoints.wait()
        good = run.checkpoints.latest()
        where = f"is {run.checkpoints.directory / str(good)}" if good else "is none"
        raise NotFinite(
            f"{error}; the last good checkpoint {where}. Lower lr (now "
            f"{run.config.lr:g}), warm up, or set optimizer.clip_norm"
        ) from error
    run.checkpoints.wait()
    _raise_if_stopped(run, f"after step {state.step:,}, saved")
    return state


def _raise_if_stopped(run, what):
    if run.stop():
        raise Stopped(f"{what}; the same command goes on from there", run.stop.signal)


def _train_epoch(run, state):
    """The rest of the epoch, or as much of it as a signal leaves."""
    config = run.config
    epoch = int(state.epochs)
    done = int(state.step) - epoch * run.steps_per_epoch
    pending = deque()  # (step of the epoch, images, metrics on the device)
    run.display.status("compiling the training step")
    for batch in batches.training(
        run.dataset.train,
        seed=config.seed,
        batch_size=config.batch_size,
        epoch=epoch,
        start=done,
        remainder=config.remainder,
    ):
        run.profile()
        state, values = run.train_step(state, batch)
        done += 1
        pending.append((done, len(batch["label"]), values))
        _read(run, epoch, pending, leave=_IN_FLIGHT)
        if run.stop():
            break
        if time.monotonic() - run.saved_at > 60 * config.checkpoint.minutes:
            _read(run, epoch, pending, leave=0)
            run.save(state)
    _read(run, epoch, pending, leave=0)
    return state


def _read(run, epoch, pending, leave):
    """Shows and logs the oldest steps under way until `leave` are left."""
    while len(pending) > leave:
        done, images, values = pending.popleft()
        values = {key: float(value) for key, value in values.items()}
        updates = epoch * run.steps_per_epoch + done
        if not np.isfinite(values["loss"]):
            raise NotFinite(
                f"the loss is {values['loss']} at step {updates} (epoch {epoch + 1})"
            )
        run.display.train(epoch + 1, done, images, values)
        if updates % run.config.log.every_steps == 0:
            run.log.write("step", {"step": updates, **values})


def _end_epoch(run, state, seen, start):
    """Validation, plateau, one row, checkpoint; nothing of it if a signal comes."""
    seconds = time.monotonic() - start
    images = float(state.sums.count) - seen
    values = {f"train_{k}": v for k, v in state.sums.means().items()}
    validation = None
    if run.dataset.validation is not None:
        validation = run.evaluate("validation", state.variables)
        if validation is None:
            return state
        for key in ("loss", "accuracy", "top5"):
            values[f"val_{key}"] = getattr(validation, key)
    row = {
        "step": int(state.step),
        "epoch": int(state.epochs) + 1,
        "learning_rate": float(
            step.learning_rate(run.recipe, state.step - 1, state.plateau)
        ),
        **values,
        "images_per_second": images / max(seconds, 1e-9),
        "seconds": time.monotonic() - start,
    }
    state = step.end_epoch(run.recipe, state, values)
    run.log.write("epoch", row)
    best = run.save(state, validation and validation._asdict())
    run.display.row(row, best=best)
    return state


def _test(run, state):
    """Reads the test split, once, with the weights the config names."""
    last = int(state.step)
    if run.config.test_with == "best":
        state = run.checkpoints.restore_best(state, report=run.display.say)
    test = run.evaluate("test", state.variables)
    _raise_if_stopped(run, "before the test")
    confusion = np.asarray(metrics.confusion(test.logits, test.labels))
    gallery.save(
        run.log.workdir,
        gallery.collect(
            run.recipe, run.dataset, state.params, test, seed=run.config.seed
        ),
    )
    run.log.show("test", {"step": last, "top1": test.accuracy, "loss": test.loss})
    epochs = [row for row in log_lib.read(run.log.workdir) if row["kind"] == "epoch"]
    return {
        "test": {
            "count": test.count,
            "accuracy": test.accuracy,
            "top5": test.top5,
            "loss": test.loss,
            "per_class": metrics.per_class(confusion, run.dataset.classes),
            "confusion": confusion.tolist(),
        },
        "checkpoint": run.config.test_with,
        "epoch": int(state.epochs),
        "step": int(state.step),
        "seconds": sum(row["seconds"] for row in epochs),
        "environment": backend.environment(),
    }
