"""SGD with momentum, three weight decays, learning-rate schedules and the plateau.

The learning rate of a step is `schedule(step) * plateau.scale`; it is passed to the
optimiser as the extra argument `learning_rate`, so nothing about it is hidden in
optimiser state. It enters the velocity (`v = m v - lr g`), as in the paper, Keras and
Loshchilov & Hutter; `optax.sgd` and PyTorch scale afterwards, which differs after a
drop.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from vgg_jax.errors import choose
from vgg_jax.training.muon import of_kernels

SPARED = ("bias", "scale")  # parameter names without decay when decay_all is False
NORM = "bn"  # how the names of batch norm's layers begin
FROZEN = "frozen_kernel"  # never decayed; its gradient is zero


def _times_learning_rate(sign: float) -> optax.GradientTransformationExtraArgs:
    def update(updates, state, params=None, *, learning_rate, **extra):
        del params, extra
        return jax.tree.map(lambda u: sign * learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def _scale_norm_biases(factor):
    """Multiplies the gradients of batch norm's biases."""

    def update(updates, state, params=None, **extra):
        del params, extra

        def scale(path, update):
            layer, name = (str(getattr(key, "key", key)) for key in path[-2:])
            scaled = layer.startswith(NORM) and name == "bias"
            return factor * update if scaled else update

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def _shrink(weight_decay, mask, by_learning_rate):
    """Adds `-weight_decay * w`, times the learning rate if asked."""

    def update(updates, state, params=None, *, learning_rate, **extra):
        del extra
        factor = -weight_decay * (learning_rate if by_learning_rate else 1.0)
        add = lambda u, p, keep: u + factor * p if keep else u  # noqa: E731
        return jax.tree.map(add, updates, params, mask(params)), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


# name -> (coupled, multiplied by the learning rate)
DECAYS = {
    "decoupled": (False, True),  # SGDW as published: w -= lr * wd * w
    "constant": (False, False),  # tfa.optimizers.SGDW: w -= wd * w, whatever lr is
    "l2": (True, True),  # the paper's: wd * w joins the gradient, and the momentum
}


def sgd(
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    decay: str = "decoupled",
    weight_decay: float = 5e-4,
    decay_all: bool = True,
    bias_scale: float = 1.0,
    clip_norm: float = 0.0,
    muon: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum. `update` takes the extra argument `learning_rate`.

    Args:
        momentum: in [0, 1); 0 keeps no velocity worth having.
        nesterov: Nesterov's look-ahead, as Keras and PyTorch define it.
        decay: "decoupled", "constant" or "l2" (`DECAYS`).
        weight_decay: strength, >= 0.
        decay_all: False spares biases and norm parameters.
        bias_scale: multiplies the learning rate of batch norm's biases (not their
            decay).
        clip_norm: largest global gradient norm (before decay); 0 is off.
        muon: the velocity of a convolution kernel is made orthogonal (`muon.py`); this
            times the learning rate is the norm of each filter's update. 0 is off.
    """
    coupled, by_learning_rate = choose(DECAYS, decay, "optimizer.decay")

    def mask(params):
        spared = (FROZEN,) if decay_all else (FROZEN, *SPARED)
        keep = lambda path, _: path[-1].key not in spared  # noqa: E731
        return jax.tree_util.tree_map_with_path(keep, params)

    steps = [
        optax.clip_by_global_norm(clip_norm) if clip_norm else None,
        _scale_norm_biases(bias_scale) if bias_scale != 1 else None,
        optax.add_decayed_weights(weight_decay, mask) if coupled else None,
        _times_learning_rate(-1.0),
        optax.trace(momentum, nesterov),
        of_kernels(muon) if muon else None,
        None if coupled else _shrink(weight_decay, mask, by_learning_rate),
    ]
    return optax.chain(*[step for step in steps if step])


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


def schedule(
    name: str,
    *,
    lr: float,
    epochs: float,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    boundaries: tuple[float, ...] = (),
    factor: float = 0.1,
    final_scale: float = 0.0,
) -> optax.Schedule:
    """Learning rate as a function of the number of updates made.

    Args:
        name: "plateau" and "constant" stay at lr (the plateau multiplies it); "step"
            multiplies by `factor` at every epoch in `boundaries`; "cosine" and
            "triangular" (linear) fall from lr to `final_scale * lr` at the end.
        lr: peak learning rate.
        epochs: length of the run in epochs.
        steps_per_epoch: updates an epoch.
        warmup_epochs: linear rise from 0 before that, within `epochs`.
    """
    warmup = round(warmup_epochs * steps_per_epoch)
    after = choose(SCHEDULES, name, "schedule.name")(
        lr,
        total_steps=max(1, round(epochs * steps_per_epoch) - warmup),
        steps_per_epoch=steps_per_epoch,
        boundaries=[epoch - warmup_epochs for epoch in boundaries],
        factor=factor,
        final_scale=final_scale,
    )
    if not warmup:
        return after
    rise = optax.linear_schedule(0.0, lr, warmup)
    return optax.join_schedules([rise, after], [warmup])


class Plateau:
    """Keras' ReduceLROnPlateau, exactly, on `optax.contrib.reduce_on_plateau`.

    Call `update` once an epoch with the monitored value; multiply the learning rate
    by `state.scale`. The state is a pytree of scalars and belongs in checkpoints.

    Args:
        mode: "min" or "max": which way is better.
        factor: multiplies the scale at a drop.
        patience: epochs without improvement at which it drops (0 acts as 1).
        min_delta: least absolute improvement.
        cooldown: Keras' cooldown: c > 1 pauses c - 1 epochs after a drop.
        min_scale: floor of the scale, `min_lr / lr`.
    """

    def __init__(self, *, mode, factor, patience, min_delta, cooldown, min_scale):
        self._sign = choose({"min": 1.0, "max": -1.0}, mode, "schedule.mode")
        self._transform = contrib.reduce_on_plateau(
            factor=factor,
            patience=max(patience, 1),  # optax at 0 would drop on improving epochs
            rtol=0.0,
            atol=max(min_delta, 1e-37),  # optax refuses 0
            cooldown=max(cooldown - 1, 0),
            min_scale=min(min_scale, 1.0),  # Keras never raises the rate
        )

    def init(self) -> contrib.ReduceLROnPlateauState:
        # A float32 "parameter": the scale takes the lowest parameter dtype.
        return self._transform.init(jnp.zeros((), jnp.float32))

    def update(self, state, value) -> contrib.ReduceLROnPlateauState:
        """State after an epoch whose monitored value is `value`."""
        value = self._sign * jnp.asarray(value, jnp.float32)
        return self._transform.update(jnp.zeros(()), state, value=value)[1]
