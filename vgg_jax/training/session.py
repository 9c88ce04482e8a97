"""What the parts of a run share while it lasts."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vgg_jax import memory, processes
from vgg_jax import mesh as meshes
from vgg_jax.data import datasets, on_device
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import RunError
from vgg_jax.evaluation.exact import Evaluation, evaluate
from vgg_jax.nn.vgg import cast
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.metric_log import MetricLog
from vgg_jax.training import (
    follower,
    placement,
    progress,
    shards,
    step,
)
from vgg_jax.training.config import Config
from vgg_jax.training.interrupt import Interrupt
from vgg_jax.training.profile import Profile

# Steps dispatched ahead of the one whose metrics are read. On CPU each takes its memory
# at once, as much as the one before, and gains nothing.
IN_FLIGHT = {"cpu": 0, "gpu": 4, "tpu": 4}
_DAMAGED = 10  # pictures that are named at the end of an epoch


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
