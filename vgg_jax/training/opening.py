"""How a run is opened, and closed again: its data, its recipe, its last saved state."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from vgg_jax import files, machine, processes
from vgg_jax import mesh as meshes
from vgg_jax.data import datasets, on_device
from vgg_jax.data.description import description
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs import metric_log, trackers
from vgg_jax.runs.checkpoint import Checkpoints, number
from vgg_jax.runs.metric_log import MetricLog
from vgg_jax.runs.run_record import is_trained
from vgg_jax.runs.workdir import (
    CHECKPOINTS,
    alike,
    check_data,
    differences,
    flatten,
    write_config,
)
from vgg_jax.training import (
    ahead_of_time,
    budget,
    division,
    first_state,
    follower,
    init_from,
    placement,
    progress,
    step,
)
from vgg_jax.training import recipe as recipes
from vgg_jax.training.config import Config
from vgg_jax.training.interrupt import Interrupt, Stopped
from vgg_jax.training.profile import Profile
from vgg_jax.training.session import IN_FLIGHT, Session

_CLASSES = "classes.txt"  # of a workdir: a name per line, in the order of the labels


@contextlib.contextmanager
def opened(
    config: Config, workdir: Path, console: Console
) -> Iterator[tuple[Session, step.TrainState]]:
    """Yields a session and its first or last saved state; closes everything after.

    Args:
        config: the run's.
        workdir: directory of the run, claimed.
        console: where progress goes.
    """
    say = partial(progress.say, console)
    mesh = meshes.over(config.mesh.data, config.mesh.model)
    division.check(config, mesh)
    budget.check(config, mesh)
    # (On an accelerator the step could be compiled ahead, too: not measured there.)
    is_one_cpu = mesh.size == 1 and jax.default_backend() == "cpu"
    is_ahead = is_one_cpu and not is_trained(workdir)
    if is_ahead:
        ahead_of_time.begin_kernels(config.model, config.batch_size)
    start = _start(config, workdir)
    dataset, recipe, steps = processes.in_turn(
        lambda: recipes.prepared(config, say, start.preprocessing)
    )
    augment = recipe.augment
    data = description(dataset, augment.measured, augment.components)
    _check_data(workdir, data)
    budget.check(config, mesh, recipe.model.num_classes, dataset.train.image_shape)
    make = first_state.maker(config, recipe, dataset.train)
    train_step, eval_step = step.compiled(recipe, mesh, config.mesh.state)
    if is_ahead:
        train_step = ahead_of_time.begun(
            train_step,
            make.eval_shape(),
            batch_size=config.batch_size,
            image_shape=dataset.train.image_shape,
        )
    state, said = first_state.made(config, recipe, make, dataset.train), ""
    if start.network:
        state, said = init_from.started(config.init, start.network, recipe, state)
    place = machine.describe(mesh.size)
    progress.show_start(console, config, workdir, dataset, state.params, place, said)
    with contextlib.ExitStack() as stack:
        checkpoints, log, spent = follower.NoCheckpoints(), follower.NoLog(), 0.0
        if processes.is_first():
            write_config(workdir, dict(config.fields))
            names = "".join(f"{name}\n" for name in dataset.classes)
            files.write_atomically(workdir / _CLASSES, names)
            checkpoints = _checkpoints(config, workdir, data, start.facts, mesh)
            stack.push(partial(_close_checkpoints, checkpoints))
            state, spent = _resumed(checkpoints, state, say)
            log = _metric_log(config, workdir, state, say)
            stack.push(partial(_close, log))
        processes.meet()
        state = meshes.shared(state)
        state = placement.placed(state, mesh, config.mesh.state)
        profile = Profile(workdir / "profile", config.profile * processes.is_first())
        stack.callback(profile.close)
        display = progress.Display(console, epochs=config.epochs, steps_per_epoch=steps)
        yield (
            Session(
                config=config,
                workdir=workdir,
                dataset=dataset,
                train=_placed(dataset.train, mesh),
                mesh=mesh,
                recipe=recipe,
                train_step=train_step,
                eval_step=eval_step,
                init=start.facts,
                steps_per_epoch=steps,
                checkpoints=checkpoints,
                metric_log=log,
                display=stack.enter_context(display),
                stop=stack.enter_context(Interrupt(_agreement(mesh) or int)),
                agreed=_agreement(mesh),
                profile=profile,
                epoch_began=time.monotonic() - spent,
            ),
            state,
        )


def _checkpoints(
    config: Config,
    workdir: Path,
    data: Mapping[str, Any],
    init: Mapping[str, Any],
    mesh: Mesh,
) -> Checkpoints:
    facts = {
        "config": dict(config.fields),
        "data": data,
        "environment": machine.environment(mesh.size),
        "init": init,
    }
    return Checkpoints(
        workdir / CHECKPOINTS,
        monitor=config.checkpoint.monitor,
        facts=facts,
        before=[workdir / metric_log.FILE],
    )


def _metric_log(
    config: Config,
    workdir: Path,
    state: step.TrainState,
    say: Callable[[str], None],
) -> MetricLog:
    fields = flatten(dict(config.fields))
    return MetricLog(
        workdir,
        step=int(state.step),
        epochs=int(state.epochs),
        tracker=trackers.opened(config.log.tracker, workdir, fields),
        report=say,
    )


def _close_checkpoints(
    checkpoints: Checkpoints | follower.NoCheckpoints, kind: type | None, *_: object
) -> None:
    """Closes them on the way out; another error that is under way comes first."""
    try:
        checkpoints.close()
    except RunError:
        if kind is None:
            raise


def _close(log: MetricLog | follower.NoLog, kind: type | None, *_: object) -> None:
    """Closes the log on the way out; `kind` is that of the exception, if any."""
    stopped = kind is not None and issubclass(kind, (Stopped, KeyboardInterrupt))
    log.close("stopped" if stopped else "failed" if kind else "finished")


def _start(config: Config, workdir: Path) -> init_from.Start:
    """Returns what the run starts from, which the first process alone reads."""
    find = partial(init_from.find, config.init, workdir, str(config.augment.normalize))
    start = find() if processes.is_first() else init_from.Start()
    facts = processes.told(lambda: start.facts)  # its weights come with the state
    return start if processes.is_first() else init_from.Start(facts=facts)


def _check_data(workdir: Path, data: Mapping[str, Any]) -> None:
    """Checks that the run was trained on this data, and that all processes have it."""
    if processes.is_first():
        check_data(workdir, data)
    theirs = processes.told(lambda: data)
    if not alike(theirs, data) and (changed := differences(theirs, data)):
        raise ConfigError(
            f"the first process has other images ({'; '.join(changed)}): give all "
            "processes the same data set (--config.data.data_dir)"
        )


def _placed(
    split: datasets.Split | Streamed, mesh: Mesh
) -> datasets.Split | Streamed | on_device.OnDevice:
    """Returns the images on the devices, if those of all processes have room."""
    if isinstance(split, Streamed):
        return split
    fits = on_device.fits(split, mesh)
    if processes.count() > 1:
        fits = not processes.Agreement(mesh)(int(not fits))
    return on_device.placed(split, mesh) if fits else split


def _agreement(mesh: Mesh) -> processes.Agreement | None:
    """Returns by what several processes come to one answer; None of one process."""
    if processes.count() == 1:
        return None
    return processes.Agreement(mesh, IN_FLIGHT[jax.default_backend()])


def _resumed(
    checkpoints: Checkpoints, state: step.TrainState, say: Callable[[str], None]
) -> tuple[step.TrainState, float]:
    """Returns the last state saved, or this one; and the seconds spent on its epoch."""
    saved = checkpoints.restore_latest(state, report=say)
    if saved is None:
        return state, 0.0
    say(f"resuming after step {saved.step:,}; epochs finished: {saved.epochs}")
    return saved, checkpoints.record(number(saved)).seconds
