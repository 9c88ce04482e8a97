"""SGD with momentum, three weight decays and a learning rate for each layer.

The learning rate is passed to the optimiser as the extra argument `learning_rate`, so
nothing about it is hidden in optimiser state. It enters the velocity
(`v = m v - lr g`), as in the paper, Keras and Loshchilov & Hutter; `optax.sgd` and
PyTorch scale afterwards, which differs after a drop.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from vgg_jax.errors import ConfigError
from vgg_jax.fields import Rule, check, field, in_range, one_of, positive, share
from vgg_jax.nn import patterns
from vgg_jax.training.muon import of_kernels
from vgg_jax.training.stateless import stateless

SPARED = ("bias", "scale")  # parameter names without decay when decay_all is False
NORM = "bn"  # how the names of batch norm's layers begin


def _times_learning_rate(updates, params, learning_rate):
    del params
    return jax.tree.map(lambda u: -learning_rate * u, updates)


def _velocity(
    momentum: float, nesterov: bool, dtype: str
) -> optax.GradientTransformationExtraArgs:
    """Returns `optax.trace`, computed in float32, whose velocity is kept in `dtype`."""
    trace = optax.with_extra_args_support(optax.trace(momentum, nesterov))
    if dtype == "float32":
        return trace
    stored = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)
    full = lambda tree: jax.tree.map(lambda x: x.astype("float32"), tree)

    def update(updates, state, params=None, **extra_args):
        updates, state = trace.update(updates, full(state), params, **extra_args)
        return updates, stored(state)

    return optax.GradientTransformationExtraArgs(
        lambda params: stored(trace.init(params)), update
    )


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


def _layer_rate(entry: str) -> tuple[str, float]:
    """Returns pattern and factor of `fc*=10`.

    Raises:
        ValueError: it is not written so.
    """
    pattern, _, factor = entry.rpartition("=")
    if not pattern or not 0 < float(factor) < math.inf:
        raise ValueError(entry)
    return pattern, float(factor)


def _layer_rates() -> Rule:
    def holds(entries: Sequence[str]) -> bool:
        try:
            return all(map(_layer_rate, entries))
        except ValueError:
            return False

    return Rule(holds, "pattern=factor with a factor above 0, as in 'fc8=10'")


def _scale_layers(entries: Sequence[str]) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates of parameters; of several patterns the last decides."""
    rates = list(map(_layer_rate, entries))

    def init(params):
        names = flatten_dict(params, sep="/")
        chosen = [pattern for pattern, _ in rates]
        patterns.chosen(names, chosen, "optimizer.layer_rates")  # each is for one
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del params, extra_args

        def factor(name):
            found = [rate for p, rate in rates if patterns.matches(name, p)]
            return found[-1] if found else 1.0

        leaves: Any = flatten_dict(updates, sep="/")
        scaled = {name: factor(name) * leaf for name, leaf in leaves.items()}
        return unflatten_dict(scaled, sep="/"), state

    return optax.GradientTransformationExtraArgs(init, update)


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
        layer_rates: factors of the learning rate by patterns for layers or parameters
            (`patterns.matches`): `("conv[12]_*=0.1", "fc8=10")`. Where several are for
            one, the last decides. "constant" decay stays as it is.
        state_dtype: type in which the velocity is kept, "float32" or "bfloat16", which
            takes half the memory; it is computed in float32.

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
    layer_rates: Sequence[str] = field((), _layer_rates())
    state_dtype: str = field("float32", one_of(("float32", "bfloat16")))

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
        steps.append(_velocity(self.momentum, self.nesterov, self.state_dtype))
        if self.muon:
            steps.append(of_kernels(self.muon))
        rates = [_scale_layers(self.layer_rates)] if self.layer_rates else []
        decays = []
        if not coupled:
            decays = [_shrink(self.weight_decay, self._decays, by_learning_rate)]
        last = [*decays, *rates] if by_learning_rate else [*rates, *decays]
        return optax.chain(*steps, *last)

    def _decays(self, params: Any) -> Any:
        """Returns whether each parameter decays."""
        decays = lambda path, _: self.decay_all or path[-1].key not in SPARED
        return jax.tree_util.tree_map_with_path(decays, params)
