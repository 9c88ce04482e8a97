"""What the parts of a run share while it lasts, and how it is opened."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from vgg_jax.data import batches, datasets
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError
from vgg_jax.evaluation.exact import Evaluation, evaluate
from vgg_jax.nn import whitening
from vgg_jax.runs import trackers
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.metric_log import MetricLog
from vgg_jax.runs.workdir import flatten, write_config
from vgg_jax.training import progress, step
from vgg_jax.training.config import Config
from vgg_jax.training.interrupt import Interrupt
from vgg_jax.training.profile import Profile
from vgg_jax.training.recipe import build


@dataclasses.dataclass
class Session:
    """What the parts of a run share. The state itself is passed along."""

    config: Config
    workdir: Path
    dataset: datasets.Dataset
    recipe: step.Recipe
    steps_per_epoch: int
    checkpoints: Checkpoints
    metric_log: MetricLog
    display: progress.Display
    stop: Interrupt
    profile: Profile

    def __post_init__(self) -> None:
        self.train_step = jax.jit(
            partial(step.train_step, self.recipe), donate_argnums=0
        )
        self.eval_step = jax.jit(partial(step.eval_step, self.recipe))
        self.saved_at = time.monotonic()

    def evaluate(self, name: str, variables: Any) -> Evaluation | None:
        """Evaluates the split `name`; None if a signal came meanwhile."""
        split = getattr(self.dataset, name)
        return evaluate(
            self.eval_step,
            variables,
            split,
            batch_size=self.config.eval_batch_size,
            report=lambda count: self.display.evaluate(name, count, len(split)),
            stop=self.stop,
        )

    def save(self, state: step.TrainState, metrics: Mapping | None = None) -> bool:
        """Starts a checkpoint; returns whether it is the best so far."""
        self.saved_at = time.monotonic()
        monitored = {k: metrics[k] for k in ("loss", "accuracy")} if metrics else None
        return self.checkpoints.save(state, monitored)


def prepare(
    config: Config, report: Callable[[str], None]
) -> tuple[datasets.Dataset, step.Recipe, int]:
    """Returns the data set, the recipe and the number of steps per epoch."""
    source = dataclasses.asdict(config.data)
    dataset = datasets.load(**source, size=config.augment.resize, report=report)
    steps = batches.steps_per_epoch(
        len(dataset.train), config.batch_size, config.remainder
    )
    return dataset, build(config, dataset, steps), steps


def _first_state(
    config: Config, recipe: step.Recipe, train: datasets.Split | Streamed
) -> step.TrainState:
    """Returns the state before the first update, whitened if asked for."""
    init = partial(step.init, recipe, seed=config.seed, image_shape=train.image_shape)
    state = jax.jit(init)()
    if not config.model.whiten:
        return state
    images, _ = train.take(np.arange(min(whitening.IMAGES, len(train))))
    images = jax.jit(recipe.augment.evaluate)(images)
    try:
        return state.replace(params=whitening.set_first(state.params, images))
    except ConfigError as error:
        raise ConfigError(f"model.{error}") from error


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
    dataset, recipe, steps = prepare(config, report=say)
    state = _first_state(config, recipe, dataset.train)
    write_config(workdir, dict(config.fields))
    progress.show_start(console, config, workdir, dataset, state.params)
    checkpoints = Checkpoints(
        workdir / "checkpoints", monitor=config.checkpoint.monitor
    )
    resumed = checkpoints.restore_latest(state, report=say)
    if resumed is not None:
        state = resumed
        say(f"resuming after step {state.step:,}; epochs finished: {state.epochs}")
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        fields = flatten(dict(config.fields))
        metric_log = MetricLog(
            workdir,
            step=int(state.step),
            epochs=int(state.epochs),
            tracker=trackers.opened(config.log.tracker, workdir, fields),
        )
        stack.callback(metric_log.close)
        profile = Profile(workdir / "profile", config.profile)
        stack.callback(profile.close)
        display = progress.Display(console, epochs=config.epochs, steps_per_epoch=steps)
        yield (
            Session(
                config=config,
                workdir=workdir,
                dataset=dataset,
                recipe=recipe,
                steps_per_epoch=steps,
                checkpoints=checkpoints,
                metric_log=metric_log,
                display=stack.enter_context(display),
                stop=stack.enter_context(Interrupt()),
                profile=profile,
            ),
            state,
        )
