"""What the parts of a run share while it lasts, and how it is opened."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from vgg_jax import backend, files, machine, memory, processes
from vgg_jax import mesh as meshes
from vgg_jax.data import batches, datasets, on_device
from vgg_jax.data.description import description
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.evaluation.exact import Evaluation, evaluate
from vgg_jax.nn import whitening
from vgg_jax.nn.preprocessing import Preprocessing
from vgg_jax.nn.vgg import cast
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
    follower,
    init_from,
    placement,
    progress,
    shards,
    step,
)
from vgg_jax.training.config import Config
from vgg_jax.training.interrupt import Interrupt, Stopped
from vgg_jax.training.profile import Profile
from vgg_jax.training.recipe import build

# Steps dispatched ahead of the one whose metrics are read. On CPU each takes its memory
# at once, as much as the one before, and gains nothing.
IN_FLIGHT = {"cpu": 0, "gpu": 4, "tpu": 4}
_CLASSES = "classes.txt"  # of a workdir: a name per line, in the order of the labels
_DAMAGED = 10  # pictures that are named at the end of an epoch
_WHITENED = 250  # images normalised at once for the whitening layer


@dataclasses.dataclass
class Session:
    """What the parts of a run share. The state itself is passed along."""

    config: Config
    workdir: Path
    dataset: datasets.Dataset
    train: datasets.Split | Streamed | on_device.OnDevice  # what steps are made on
    recipe: step.Recipe
    train_step: Callable[..., Any]
    eval_step: Callable[..., Any]
    init: Mapping[str, Any]  # what it started from (`init_from.Start.facts`)
    steps_per_epoch: int
    checkpoints: Checkpoints | follower.NoCheckpoints
    metric_log: MetricLog | follower.NoLog
    display: progress.Display
    stop: Interrupt
    profile: Profile
    mesh: Mesh
    agreed: processes.Agreement | None  # whether a save is due; None: one process
    epoch_began: float  # as `time.monotonic` counts, what earlier starts spent included

    def __post_init__(self) -> None:
        gathered = partial(placement.gathered, mesh=self.mesh)
        self.gather = jax.jit(gathered)
        self.saved_at = time.monotonic()
        self.told: set[str] = set()

    @property
    def is_spread(self) -> bool:
        """Whether a device may hold a part of the weights or the optimiser's state."""
        mesh = self.config.mesh
        return mesh.state != "replicated" or mesh.model > 1

    def evaluate(self, name: str, variables: Any) -> Evaluation | None:
        """Evaluates the split `name`; None if a signal came meanwhile."""
        split = getattr(self.dataset, name)
        if self.mesh.size == 1:
            variables = step.for_evaluation(
                self.recipe, variables, split, self.config.eval_batch_size
            )
        else:
            variables = cast(self.recipe.model, variables)
            if self.is_spread:
                variables = self.gather(variables)
        try:
            evaluation = evaluate(
                self.eval_step,
                variables,
                split,
                batch_size=self.config.eval_batch_size,
                parts=shards.parts(self.recipe.shards, self.mesh),
                mesh=self.mesh,
                report=lambda count: self.display.evaluate(name, count, len(split)),
                stop=self.stop,
            )
        except Exception:
            if not self.stop.is_cause:
                raise
            evaluation = None
        del variables  # what was prepared is given back, too
        memory.give_back()
        return evaluation

    def tell_damaged(self) -> None:
        """Names pictures that could not be decoded, each once.

        Each process reads its own, and says so itself.
        """
        say = self.display.say if processes.is_first() else print
        met = dict(self.dataset.damaged)
        new = {name: why for name, why in met.items() if name not in self.told}
        self.told |= new.keys()
        for name, why in itertools.islice(new.items(), _DAMAGED):
            say(f"damaged picture {name}: {why}")
        if len(new) > _DAMAGED:
            say(f"and {len(new) - _DAMAGED:,} more damaged pictures")

    def save_is_due(self) -> bool:
        """Returns whether the last save is long enough ago; all processes hear yes."""
        late = time.monotonic() - self.saved_at > 60 * self.config.checkpoint.minutes
        if self.agreed is None:
            return late
        if due := bool(self.agreed(int(late))):
            self.agreed.forget()
        return due

    def save(
        self,
        state: step.TrainState,
        metrics: Mapping | None = None,
        *,
        ends_epoch: bool = False,
    ) -> bool:
        """Starts a checkpoint; returns whether it is the best so far."""
        self.saved_at = time.monotonic()
        if self.is_spread:
            state = meshes.gathered(state)
        if metrics is None:
            seconds = 0.0 if ends_epoch else self.epoch_seconds()
            return self.checkpoints.save(state, seconds=seconds)
        monitored = {key: metrics[key] for key in ("loss", "accuracy")}
        return self.checkpoints.save(state, monitored)

    def best(self, like: step.TrainState) -> step.TrainState:
        """Returns the state that validated best.

        Raises:
            RunError: there is none.
        """
        best = self.checkpoints.restore_best(like, report=self.display.say)
        processes.meet()
        if best is None:
            raise RunError(f"{self.workdir} has no validated checkpoint to test")
        return self.placed(meshes.shared(best))

    def placed(self, state: step.TrainState) -> step.TrainState:
        """Returns a state with each array on the devices that keep it."""
        return placement.placed(state, self.mesh, self.config.mesh.state)

    def epoch_seconds(self) -> float:
        """Returns the seconds spent on this epoch so far, by all starts of the run."""
        return time.monotonic() - self.epoch_began


def prepare(
    config: Config,
    report: Callable[[str], None],
    adopted: Preprocessing | None = None,
) -> tuple[datasets.Dataset, step.Recipe, int]:
    """Returns the data set, the recipe and the number of steps per epoch.

    Args:
        config: the run's.
        report: receives a line when something takes long.
        adopted: of the network that the run starts from, if it does.
    """
    source = dataclasses.asdict(config.data)
    shown = {"size": config.augment.resize, "scales": config.augment.scales}
    dataset = datasets.load(**source, **shown, report=report)
    steps = batches.steps_per_epoch(
        len(dataset.train), config.batch_size, config.remainder
    )
    return dataset, build(config, dataset, steps, adopted), steps


def _init(config: Config, recipe: step.Recipe, train: datasets.Split | Streamed) -> Any:
    """Returns `step.init`, jitted, of no arguments."""
    init = partial(step.init, recipe, seed=config.seed, image_shape=train.image_shape)
    return jax.jit(init, compiler_options=backend.options_to_run_once())


def _steps(
    config: Config,
    recipe: step.Recipe,
    mesh: Mesh,
    init: Any,
    train: datasets.Split | Streamed,
    trains: bool,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the training and the evaluation step, jitted.

    On one CPU the former is compiled meanwhile. (On an accelerator it could be, too: it
    was not measured there.)
    """
    train_step, eval_step = step.compiled(recipe, mesh, config.mesh.state)
    is_one_cpu = mesh.size == 1 and jax.default_backend() == "cpu"
    if trains and is_one_cpu:
        train_step = ahead_of_time.begun(
            train_step,
            init.eval_shape(),
            batch_size=config.batch_size,
            image_shape=train.image_shape,
        )
    return train_step, eval_step


def _first_state(
    config: Config,
    recipe: step.Recipe,
    init: Any,
    train: datasets.Split | Streamed,
) -> step.TrainState:
    """Returns the state before the first update, whitened if asked for."""
    state = init()
    if not config.model.whiten:
        return state
    first = np.arange(min(whitening.IMAGES, len(train)))
    chunks = [first[i : i + _WHITENED] for i in range(0, len(first), _WHITENED)]
    evaluate = jax.jit(recipe.augment.evaluate)
    shown = (evaluate(images) for images, _ in train.batches(chunks))
    try:
        return state.replace(params=whitening.set_first(state.params, shown))
    except ConfigError as error:
        raise ConfigError(f"model.{error}") from error


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
    start = _start(config, workdir)
    dataset, recipe, steps = processes.in_turn(
        lambda: prepare(config, say, start.preprocessing)
    )
    augment = recipe.augment
    data = description(dataset, augment.measured, augment.components)
    _check_data(workdir, data)
    budget.check(config, mesh, recipe.model.num_classes, dataset.train.image_shape)
    init = _init(config, recipe, dataset.train)
    trains = not is_trained(workdir)
    train_step, eval_step = _steps(config, recipe, mesh, init, dataset.train, trains)
    state, said = _first_state(config, recipe, init, dataset.train), ""
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
