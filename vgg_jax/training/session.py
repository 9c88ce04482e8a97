"""What the parts of a run share, and how it is opened."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from vgg_jax.data import batches
from vgg_jax.data import datasets as data
from vgg_jax.evaluation.exact import Evaluation, evaluate
from vgg_jax.nn import whitening as whiten
from vgg_jax.runs import trackers
from vgg_jax.runs import workdir as workdir_lib
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.metric_log import MetricLog
from vgg_jax.training import progress, recipe, step
from vgg_jax.training.interrupt import Interrupt
from vgg_jax.training.profile import Profile


@dataclasses.dataclass
class Run:
    """What the parts of a run share. The state itself is passed along."""

    config: ConfigDict
    dataset: data.Dataset
    recipe: step.Recipe
    steps_per_epoch: int
    checkpoints: Checkpoints
    log: MetricLog
    display: progress.Display
    stop: Interrupt
    profile: Profile

    def __post_init__(self):
        self.train_step = jax.jit(
            partial(step.train_step, self.recipe), donate_argnums=0
        )
        self.eval_step = jax.jit(partial(step.eval_step, self.recipe))
        self.saved_at = time.monotonic()

    def evaluate(self, name: str, variables: Any) -> Evaluation | None:
        split = getattr(self.dataset, name)
        return evaluate(
            self.eval_step,
            variables,
            split,
            batch_size=self.config.eval_batch_size,
            report=lambda done: self.display.evaluate(name, done, len(split)),
            stop=self.stop,
        )

    def save(self, state: step.TrainState, values: dict | None = None) -> bool:
        self.saved_at = time.monotonic()
        kept = {k: values[k] for k in ("loss", "accuracy")} if values else None
        return self.checkpoints.save(state, kept)


def prepare(
    config: ConfigDict, report: Callable[[str], None]
) -> tuple[data.Dataset, step.Recipe, int]:
    """Data set, recipe and steps an epoch of a resolved config."""
    dataset = data.load(**config.data, size=config.augment.resize, report=report)
    steps = batches.steps_per_epoch(
        len(dataset.train), config.batch_size, config.remainder
    )
    return dataset, recipe.build(config, dataset, steps), steps


def _first_state(config, made, train):
    """The state before the first update, whitened if asked for."""
    shape = train.image_shape
    state = jax.jit(partial(step.init, made, seed=config.seed, image_shape=shape))()
    if not config.model.whiten:
        return state
    images, _ = train.take(np.arange(min(whiten.IMAGES, len(train))))
    images = jax.jit(made.augment.evaluate)(images)
    return state.replace(params=whiten.set_first(state.params, images))


@contextlib.contextmanager
def opened(
    config: ConfigDict, workdir: Path, console: Console
) -> Iterator[tuple[Run, step.TrainState]]:
    """A run and its first or last saved state; everything is closed at the end.

    Args:
        config: resolved.
        workdir: claimed.
        console: where progress goes.
    """
    say = partial(progress.say, console)
    dataset, made, steps = prepare(config, report=say)
    state = _first_state(config, made, dataset.train)
    workdir_lib.record(workdir, json.loads(config.to_json()))
    progress.show_start(console, config, workdir, dataset, state.params)
    checkpoints = Checkpoints(
        workdir / "checkpoints", monitor=config.checkpoint.monitor
    )
    resumed = checkpoints.restore_latest(state, report=say)
    if resumed is not None:
        state = resumed
        say(f"resuming after step {state.step:,} (epoch {state.epochs} done)")
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        fields = workdir_lib.flatten(config.to_dict())
        log = MetricLog(
            workdir,
            step=int(state.step),
            epochs=int(state.epochs),
            tracker=trackers.opened(config.log.tracker, workdir, fields),
        )
        stack.callback(log.close)
        profile = Profile(workdir / "profile", config.profile)
        stack.callback(profile.close)
        yield (
            Run(
                config=config,
                dataset=dataset,
                recipe=made,
                steps_per_epoch=steps,
                checkpoints=checkpoints,
                log=log,
                display=stack.enter_context(
                    progress.Display(
                        console, epochs=config.epochs, steps_per_epoch=steps
                    )
                ),
                stop=stack.enter_context(Interrupt()),
                profile=profile,
            ),
            state,
        )
