"""SGD with momentum and three weight decays.

The learning rate is passed to the optimiser as the extra argument `learning_rate`, so
nothing about it is hidden in optimiser state. It enters the velocity
(`v = m v - lr g`), as in the paper, Keras and Loshchilov & Hutter; `optax.sgd` and
PyTorch scale afterwards, which differs after a drop.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from vgg_jax.errors import ConfigError
from vgg_jax.fields import check, field, in_range, one_of, positive, share
from vgg_jax.training.muon import of_kernels
from vgg_jax.training.stateless import stateless

SPARED = ("bias", "scale")  # parameter names without decay when decay_all is False
NORM = "bn"  # how the names of batch norm's layers begin


def _times_learning_rate(updates, params, learning_rate):
    del params
    return jax.tree.map(lambda u: -learning_rate * u, updates)


def _scale_norm_biases(factor: float) -> optax.GradientTransformationExtraArgs:
    """Multiplies the gradients of batch norm's biases."""

    def scale(path, update):
        layer, name = (str(getattr(key, "key", key)) for key in path[-2:])
        scaled = layer.startswith(NORM) and name == "bias"
        return factor * update if scaled else update

    return stateless(
        lambda updates, params, rate: jax.tree_util.tree_map_with_path(scale, updates)
    )


def _shrink(
    weight_decay: float, decays: Callable[[Any], Any], by_learning_rate: bool
) -> optax.GradientTransformationExtraArgs:
    """Adds `-weight_decay * w`, times the learning rate if asked."""

    def add(updates, params, learning_rate):
        factor = -weight_decay * (learning_rate if by_learning_rate else 1.0)
        shrink = lambda u, p, decay: u + factor * p if decay else u
        return jax.tree.map(shrink, updates, params, decays(params))

    return stateless(add)


# name -> (coupled, multiplied by the learning rate)
DECAYS = {
    "decoupled": (False, True),  # SGDW as published: w -= lr * wd * w
    "constant": (False, False),  # tfa.optimizers.SGDW: w -= wd * w, whatever lr is
    "l2": (True, True),  # the paper's: wd * w joins the gradient, and the momentum
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    """SGD with momentum, its weight decay and, for kernels, Muon.

    Attributes:
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

    Raises:
        ConfigError: a field is out of its range, or contradicts another.

    >>> import jax.numpy as jnp
    >>> optimizer = SGD(decay="l2", weight_decay=0.0).transformation()
    >>> params = {"fc8": {"bias": jnp.array([1.0])}}
    >>> updates, _ = optimizer.update(
    ...     params, optimizer.init(params), params, learning_rate=0.5
    ... )
    >>> updates["fc8"]["bias"].tolist()
    [-0.5]
    """

    momentum: float = field(0.9, share())
    nesterov: bool = False
    decay: str = field("decoupled", one_of(DECAYS))
    weight_decay: float = field(5e-4, in_range(0))
    decay_all: bool = True
    bias_scale: float = field(1.0, positive())
    clip_norm: float = field(0.0, in_range(0))
    muon: float = field(0.0, in_range(0))

    def __post_init__(self) -> None:
        check(self)
        if self.muon and self.decay == "l2":
            raise ConfigError(
                f"muon={self.muon} keeps only the direction of what joins the "
                "gradient, so l2 would not decay: set decay='decoupled'"
            )

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """Returns the optimiser; its `update` takes the argument `learning_rate`."""
        coupled, by_learning_rate = DECAYS[self.decay]
        steps = []
        if self.clip_norm:
            steps.append(optax.clip_by_global_norm(self.clip_norm))
        if self.bias_scale != 1:
            steps.append(_scale_norm_biases(self.bias_scale))
        if coupled:
            steps.append(optax.add_decayed_weights(self.weight_decay, self._decays))
        steps.append(stateless(_times_learning_rate))
        steps.append(optax.trace(self.momentum, self.nesterov))
        if self.muon:
            steps.append(of_kernels(self.muon))
        if not coupled:
            steps.append(_shrink(self.weight_decay, self._decays, by_learning_rate))
        return optax.chain(*steps)

    def _decays(self, params: Any) -> Any:
        """Returns whether each parameter decays."""
        decays = lambda path, _: self.decay_all or path[-1].key not in SPARED
        return jax.tree_util.tree_map_with_path(decays, params)
