"""The run: train, validate, keep checkpoints, test once at the end."""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from vgg_jax import files, memory, processes
from vgg_jax.data import batches
from vgg_jax.errors import RESUMES, ConfigError, RunError, system_errors
from vgg_jax.files import write_atomically
from vgg_jax.runs import checked_json, metric_log
from vgg_jax.runs.checkpoint import NotFinite, number
from vgg_jax.runs.run_record import REPORT, RESULT, RunRecord, is_trained
from vgg_jax.runs.workdir import CHECKPOINTS, claim, differences, flatten
from vgg_jax.training import idle, progress, step
from vgg_jax.training.config import Config, resolve
from vgg_jax.training.final_evaluation import final_evaluation, tested
from vgg_jax.training.interrupt import Stopped
from vgg_jax.training.opening import opened
from vgg_jax.training.session import IN_FLIGHT, Session
from vgg_jax.training.step import TrainState

# Fields that may change between two starts, and not between processes.
_SAME = ("mesh.", "model.remat", "data.stream")
_SETTLING = 3  # steps of an epoch until malloc has found room for one and stays with it


def train(
    config: ConfigDict,
    workdir: str | Path,
    console: Console | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Trains, or resumes, or finds finished, the run of a config in its workdir.

    Args:
        config: as a file of `configs/` returns it.
        workdir: directory of the run; created if missing.
        console: where progress goes; the terminal by default.
        test: whether to read the test split at the end. Without it the run is trained
            and saved, and the same call with it tests the run later.

    Returns:
        The contents of `<workdir>/result.json`; without `test`, nothing: {}.

    Raises:
        ConfigError: a value in the config is wrong, or the workdir is another run's.
        RunError: the machine, the data or a file is wrong; what was saved stays.
        Stopped: a signal came; the same call resumes.

    >>> import tempfile
    >>> from configs import quickstart
    >>> config = quickstart.get_config()
    >>> config.update_from_flattened_dict({
    ...     "epochs": 1, "batch_size": 16, "model.variant": "conv3-8 | conv3-8 |",
    ...     "data.train": "train[:64]"})
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     result = train(config, directory, Console(quiet=True))
    >>> result["test"]["count"]
    1000
    """
    console, workdir = console or Console(), Path(workdir)
    say = partial(progress.say, console)
    resolved = resolve(config)
    fields = dict(resolved.fields)
    nothing = idle.idle_fields(fields)
    if not processes.is_first():
        _take_part(resolved, workdir, say)
        return {}
    with system_errors(workdir, RESUMES), claim(workdir, fields, say, nothing):
        result = _known_result(workdir, resolved.epochs, say)
        trains = result is None if test else not is_trained(workdir)
        processes.told(lambda: [fields, trains, test])
        if not test:
            _train_only(resolved, workdir, console)
            return {}
        if result is None:
            with opened(resolved, workdir, console) as (session, state):
                result = final_evaluation(session, _fit(session, state))
                if result is None:
                    raise _stopped(session, "before the test")
                text = checked_json.dumps(result, indent=2)
                write_atomically(workdir / RESULT, text + "\n")
                (workdir / REPORT).unlink(missing_ok=True)  # made before the test
        else:
            say(f"{workdir} is finished; its result:")
        progress.show_result(console, result)
        _show_report(workdir, say)
        return result


def _known_result(
    workdir: Path, epochs: int, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Returns the result of a finished run; None if it is not, or must test again."""
    file = workdir / RESULT
    try:
        result = checked_json.loads(file.read_bytes(), since="classes")
    except FileNotFoundError:
        return None
    except ValueError as error:
        files.set_aside(file, workdir / "damaged")
        say(f"{file} is damaged ({error}): moved to damaged/; the run is tested again")
        return None
    if lost := metric_log.loss(workdir, epochs):
        say(lost)
    return result


def _show_report(workdir: Path, say: Callable[[str], None]) -> None:
    """Says where the page of a finished run is; makes it where a kill prevented it."""
    page = workdir / REPORT
    try:
        if not page.exists():
            from vgg_jax.runs import report  # matplotlib: a start need not wait for it

            report.write(workdir)
        say(f"report: {page}")
    except (ImportError, OSError, RunError) as error:
        say(f"{page} could not be made ({error}); vgg report --workdir={workdir}")


def _take_part(config: Config, workdir: Path, say: Callable[[str], None]) -> None:
    """Computes its part of a run that the first process keeps."""
    say(f"process {processes.index()} takes part; the first one says how it goes")
    fields, trains, tests = processes.told(list)
    own = flatten(dict(config.fields))
    changed = differences(fields, dict(config.fields))
    changed += [
        f"{name}: {theirs} -> {own[name]}"
        for name, theirs in flatten(fields).items()
        if name.startswith(_SAME) and theirs != own[name]
    ]
    if changed:
        raise ConfigError(
            f"the first process has another config ({'; '.join(changed)}): start all "
            "of them with the same command, but for --process_id, and set model.dtype "
            "where their processors differ"
        )
    if trains:
        with opened(config, workdir, Console(quiet=True)) as (session, state):
            state = _fit(session, state)
            if tests and tested(session, state) is None:
                raise _stopped(session, "before the test")


def _train_only(config: Config, workdir: Path, console: Console) -> None:
    """Trains to the last epoch, unless that is behind it, and says how good it is."""
    if not is_trained(workdir):
        with opened(config, workdir, console) as (session, state):
            _fit(session, state)
    best = RunRecord(workdir).best_validation
    said = "" if best is None else f"; best validation top-1 {100 * best:.2f}%"
    progress.say(console, f"{workdir} is trained{said}")


def _fit(session: Session, state: TrainState) -> TrainState:
    """Trains to the last epoch; returns the final state, saved."""
    try:
        while state.epochs < session.config.epochs and not session.stop():
            state = _train_epoch(session, state)
            if not session.stop():
                state = _end_epoch(session, state)
        session.checkpoints.wait()
        processes.meet()
        if session.stop() and processes.told(lambda: not _is_saved(session, state)):
            session.save(state)
    except NotFinite as error:
        session.checkpoints.wait()
        good = session.checkpoints.latest()
        where = f"is {session.workdir / CHECKPOINTS / str(good)}" if good else "is none"
        told = f"; the last good checkpoint {where}" if processes.is_first() else ""
        raise NotFinite(
            f"{error}{told}. Lower lr (now "
            f"{session.config.lr:g}), warm up, or set optimizer.clip_norm"
        ) from error
    session.checkpoints.wait()
    if session.stop():
        raise _stopped(session, f"after step {state.step:,}, saved")
    return state


def _is_saved(session: Session, state: TrainState) -> bool:
    return session.checkpoints.latest() == number(state)


def _stopped(session: Session, when: str) -> Stopped:
    return Stopped(f"{when}; the same command resumes it", session.stop.signal)


def _train_epoch(session: Session, state: TrainState) -> TrainState:
    """Trains the rest of the epoch, or as much of it as a signal leaves."""
    config = session.config
    epoch = int(state.epochs)
    start = int(state.step) - epoch * session.steps_per_epoch
    pending = deque()  # (step of the epoch, images, metrics on the device)
    in_flight = IN_FLIGHT[jax.default_backend()]
    session.display.status("compiling the training step")
    epoch_batches = batches.training(
        session.train,
        seed=config.seed,
        batch_size=config.batch_size,
        epoch=epoch,
        start=start,
        remainder=config.remainder,
        mesh=session.mesh,
    )
    epoch_batches = session.stop.until_heard(epoch_batches)
    for i, batch in enumerate(epoch_batches, start + 1):
        session.profile()
        state, metrics = session.train_step(state, batch)
        pending.append((i, len(batch.labels), metrics))
        _read(session, epoch, pending, leave=in_flight)
        if i <= start + _SETTLING or memory.is_short():
            memory.give_back()
        if session.stop():
            break
        if session.save_is_due():
            _read(session, epoch, pending, leave=0)
            session.save(state)
    _read(session, epoch, pending, leave=0)
    memory.give_back()
    return state


def _read(session: Session, epoch: int, pending: deque, leave: int) -> None:
    """Shows and logs the oldest steps under way until `leave` are left."""
    while len(pending) > leave:
        i, images, metrics = pending.popleft()
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        updates = epoch * session.steps_per_epoch + i
        if not np.isfinite(metrics["loss"]):
            raise NotFinite(
                f"the loss is {metrics['loss']} at step {updates} (epoch {epoch + 1})"
            )
        session.display.train(epoch + 1, i, images, metrics)
        if updates % session.config.log.every_steps == 0:
            session.metric_log.write("step", {"step": updates, **metrics})


def _end_epoch(session: Session, state: TrainState) -> TrainState:
    """Validates, drops the rate, logs, saves; nothing of it if a signal comes."""
    training_seconds = session.epoch_seconds()
    values = {f"train_{k}": v for k, v in state.sums.means().items()}
    validation = None
    if session.dataset.validation is not None:
        validation = session.evaluate("validation", state.variables)
        if validation is None:
            return state
        for key in ("loss", "accuracy", "top5"):
            values[f"val_{key}"] = getattr(validation, key)
    last, plateau = jax.device_get((state.step - 1, state.plateau))
    rate = step.learning_rate(session.recipe, last, plateau)
    row = {
        "step": int(state.step),
        "epoch": int(state.epochs) + 1,
        "learning_rate": float(rate),
        **values,
        "images_per_second": float(state.sums.count) / max(training_seconds, 1e-9),
        "seconds": session.epoch_seconds(),
    }
    state = session.placed(step.end_epoch(session.recipe, state, values))
    session.metric_log.write("epoch", row)
    best = session.save(state, validation and validation._asdict(), ends_epoch=True)
    session.display.row(row, best=best)
    session.tell_damaged()
    session.epoch_began = time.monotonic()
    return state
