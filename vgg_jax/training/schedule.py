"""The learning rate: schedules over a run, and the plateau that reduces it.

The learning rate of a step is `schedule(step) * plateau.scale`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from vgg_jax.errors import choose
from vgg_jax.fields import Rule, check, count, field, in_range, one_of, share


def _constant(lr, **_):
    return optax.constant_schedule(lr)


def _step(lr, *, steps_per_epoch, boundaries, factor, **_):
    return optax.piecewise_constant_schedule(
        lr, {round(epoch * steps_per_epoch): factor for epoch in boundaries}
    )


def _cosine(lr, *, total_steps, final_scale, **_):
    return optax.cosine_decay_schedule(lr, total_steps, final_scale)


def _triangular(lr, *, total_steps, final_scale, **_):
    return optax.linear_schedule(lr, final_scale * lr, total_steps)


SCHEDULES: dict[str, Callable] = {
    "plateau": _constant,  # times the plateau's scale
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "triangular": _triangular,
}


MONITORS = tuple(
    f"{split}_{metric}"
    for split in ("val", "train")
    for metric in ("loss", "accuracy", "top5")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate of a run.

    Attributes:
        name: "plateau" and "constant" stay at the peak (the plateau multiplies it);
            "step" multiplies by `factor` at every epoch in `boundaries`; "cosine" and
            "triangular" (linear) fall to `final_scale` times the peak at the end.
        warmup: share of the epochs, in [0, 1), of a linear rise from 0 before that.
        boundaries: of "step", epochs at which the rate drops.
        factor: of a drop, in (0, 1); for "step" and "plateau".
        final_scale: of "cosine" and "triangular", last rate over peak, in [0, 1].
        monitor: value of the epoch that the plateau looks at (`MONITORS`).
        patience: of the plateau, epochs without improvement at which it drops.
        min_delta: of the plateau, least absolute improvement.
        cooldown: of the plateau, Keras' cooldown in epochs.
        min_lr: of the plateau, floor of the learning rate.

    Raises:
        ConfigError: a field is unknown or out of its range.

    >>> rate = Schedule(name="triangular").rate(lr=0.4, epochs=2, steps_per_epoch=10)
    >>> [round(float(rate(step)), 2) for step in (0, 10, 20)]
    [0.4, 0.2, 0.0]
    """

    name: str = field("plateau", one_of(SCHEDULES))
    warmup: float = field(0.0, share())
    boundaries: Sequence[float] = field(
        (60, 120, 160),
        Rule(
            lambda x: all(a < b for a, b in pairwise([0, *x])), "rising epochs above 0"
        ),
    )
    factor: float = field(0.1, Rule(lambda x: 0 < x < 1, "in (0, 1)"))
    final_scale: float = field(0.0, Rule(lambda x: 0 <= x <= 1, "in [0, 1]"))
    monitor: str = field("val_loss", one_of(MONITORS))
    patience: int = field(1, count(0))
    min_delta: float = field(1e-4, in_range(0))
    cooldown: int = field(0, count(0))
    min_lr: float = field(1e-5, in_range(0))

    def __post_init__(self) -> None:
        check(self)

    def rate(self, *, lr: float, epochs: float, steps_per_epoch: int) -> optax.Schedule:
        """Returns the learning rate as a function of the number of updates made.

        Args:
            lr: peak learning rate.
            epochs: length of the run.
            steps_per_epoch: updates per epoch.
        """
        warmup = self.warmup_steps(epochs * steps_per_epoch)
        after = SCHEDULES[self.name](
            lr,
            total_steps=max(1, round(epochs * steps_per_epoch) - warmup),
            steps_per_epoch=steps_per_epoch,
            boundaries=[e - warmup / steps_per_epoch for e in self.boundaries],
            factor=self.factor,
            final_scale=self.final_scale,
        )
        if not warmup:
            return after
        rise = optax.linear_schedule(0.0, lr, warmup)
        return optax.join_schedules([rise, after], [warmup])

    def warmup_steps(self, total_steps: float) -> int:
        """Returns how many of the run's updates the rate rises in."""
        # A share of nine digits (`renamed.modern`) must not decide about half a step.
        return round(round(self.warmup * total_steps, 3))

    def plateau(self, lr: float) -> "Plateau | None":
        """Returns the plateau of a run with the peak `lr`, or None if it has none."""
        if self.name != "plateau":
            return None
        return Plateau(
            mode="min" if self.monitor.endswith("loss") else "max",
            factor=self.factor,
            patience=self.patience,
            min_delta=self.min_delta,
            cooldown=self.cooldown,
            min_scale=self.min_lr / lr,
        )


class Plateau:
    """Keras' ReduceLROnPlateau, exactly, on `optax.contrib.reduce_on_plateau`.

    Call `update` once per epoch with the monitored value; multiply the learning rate
    by `state.scale`. The state is a pytree of scalars and belongs in checkpoints.

    >>> plateau = Plateau(mode="min", factor=0.1, patience=1, min_delta=1e-4,
    ...                   cooldown=0, min_scale=1e-3)
    >>> state = plateau.init()
    >>> for loss in (2.0, 1.5, 1.5):
    ...     state = plateau.update(state, loss)
    >>> round(float(state.scale), 4)
    0.1

    Args:
        mode: which way is better, "min" or "max".
        factor: multiplies the scale at a drop.
        patience: epochs without improvement at which it drops (0 acts as 1).
        min_delta: least absolute improvement.
        cooldown: Keras' cooldown: c > 1 pauses c - 1 epochs after a drop.
        min_scale: floor of the scale, `min_lr / lr`.
    """

    def __init__(
        self,
        *,
        mode: str,
        factor: float,
        patience: int,
        min_delta: float,
        cooldown: int,
        min_scale: float,
    ) -> None:
        self._sign = choose({"min": 1.0, "max": -1.0}, mode, "mode")
        self._transform = contrib.reduce_on_plateau(
            factor=factor,
            patience=max(patience, 1),  # optax at 0 would drop on improving epochs
            rtol=0.0,
            atol=max(min_delta, 1e-37),  # optax refuses 0
            cooldown=max(cooldown - 1, 0),
            min_scale=min(min_scale, 1.0),  # Keras never raises the rate
        )

    def init(self) -> contrib.ReduceLROnPlateauState:
        """Returns the state before the first epoch."""
        # A float32 "parameter": the scale takes the lowest parameter dtype.
        return self._state(self._transform.init(jnp.zeros((), jnp.float32)))

    def update(
        self, state: contrib.ReduceLROnPlateauState, value: float
    ) -> contrib.ReduceLROnPlateauState:
        """Returns the state after an epoch whose monitored value is `value`."""
        monitored = self._sign * jnp.asarray(value, jnp.float32)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes counts and scales
            update = self._transform.update(jnp.zeros(()), state, value=monitored)
        return self._state(update[1])

    @staticmethod
    def _state(state: Any) -> contrib.ReduceLROnPlateauState:
        """Narrows the type: Optax calls it any pytree."""
        return state
