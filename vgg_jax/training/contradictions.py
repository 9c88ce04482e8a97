"""Values of a config that are right each by itself, and wrong together."""

from typing import TYPE_CHECKING

from vgg_jax.errors import ConfigError
from vgg_jax.nn import architecture
from vgg_jax.nn.preprocessing import INIT
from vgg_jax.training.sgd import DECAYS

if TYPE_CHECKING:
    from vgg_jax.training.config import Config


def check(config: "Config") -> None:
    """Checks a config for contradictions that hold on every machine.

    Raises:
        ConfigError: two values contradict each other.
    """
    for rule in (
        _averages,
        _decay,
        _validation,
        _size,
        _scales,
        _workers,
        _normalize,
        _shards,
        _groups,
    ):
        rule(config)


def _averages(config: "Config") -> None:
    if config.ema_decay and config.lookahead:
        raise ConfigError(
            f"ema_decay={config.ema_decay} and lookahead={config.lookahead} are two "
            "averages of the weights: set one of them to 0"
        )


def _decay(config: "Config") -> None:
    _, by_learning_rate = DECAYS[config.optimizer.decay]
    decay = config.optimizer.weight_decay
    share = config.lr * decay if by_learning_rate else decay
    if share >= 1:
        rate = f" at lr={config.lr:g}" if by_learning_rate else ""
        raise ConfigError(
            f"optimizer.weight_decay={decay:g}{rate} takes {share:g} times a weight "
            "off it at every step, which flips its sign: keep it below "
            f"{decay / share:g}"
        )


def _validation(config: "Config") -> None:
    if config.data.validation != "none":
        return
    plateau = config.schedule.name == "plateau"
    if plateau and config.schedule.monitor.startswith("val_"):
        raise ConfigError(
            f"schedule.monitor={config.schedule.monitor!r} needs a validation split, "
            "and data.validation='none': monitor train_loss or use another schedule"
        )
    if config.test_with == "best":
        raise ConfigError(
            "test_with='best' needs a validation split, and data.validation='none': "
            "set test_with=last"
        )


def _size(config: "Config") -> None:
    least = architecture.least_size(config.model.variant)
    if 0 < config.augment.resize < least:
        raise ConfigError(
            f"augment.resize={config.augment.resize} is too small: configuration "
            f"{config.model.variant} needs at least {least}x{least} pixels"
        )


def _scales(config: "Config") -> None:
    augment = config.augment
    if not augment.scales:
        return
    if not 0 < augment.resize <= min(augment.scales):
        raise ConfigError(
            f"augment.scales={tuple(augment.scales)} are of pictures of which "
            f"augment.resize={augment.resize} pixels are cut out: set augment.resize "
            f"to what the network sees, from 1 to {min(augment.scales)}"
        )
    if augment.crop:
        raise ConfigError(
            f"augment.crop={augment.crop} and augment.scales={tuple(augment.scales)} "
            "are two random crops: set crop to 0, or scales to ()"
        )


def _workers(config: "Config") -> None:
    if config.data.workers and not config.data.streams:
        raise ConfigError(
            f"data.workers={config.data.workers} does nothing for images in memory: "
            "leave it at its default, 0, or set data.stream=True"
        )


def _normalize(config: "Config") -> None:
    if config.augment.normalize == INIT and not config.init.path:
        raise ConfigError(
            f"augment.normalize={INIT!r} is what the network of init.path expects, and "
            "there is no init.path: set it, or leave augment.normalize at auto"
        )


def _shards(config: "Config") -> None:
    shards, batch = config.shards, config.batch_size
    if shards & (shards - 1):
        raise ConfigError(
            f"shards={shards} is no power of two, as adding them up in one order takes"
        )
    if batch % shards:
        raise ConfigError(
            f"batch_size={batch} cannot be divided among {shards} shards: use "
            f"{-(-batch // shards) * shards}"
        )
    if shards > 1 and config.remainder == "keep":
        raise ConfigError(
            f"remainder='keep' gives a last batch that {shards} shards may not divide: "
            "set remainder=drop"
        )


def _groups(config: "Config") -> None:
    model, dense = config.mesh.model, config.model
    if model == 1:
        return
    if dense.head == "compact" or not dense.hidden:
        raise ConfigError(
            f"mesh.model={model} divides the hidden dense layers, and there are none "
            f"(model.head={dense.head!r}, model.hidden={tuple(dense.hidden)}): set "
            "mesh.model=1"
        )
    if any(width % model for width in dense.hidden):
        raise ConfigError(
            f"model.hidden={tuple(dense.hidden)} cannot be divided among groups of "
            f"mesh.model={model} devices: use a divisor"
        )
    if config.shards > 1:
        raise ConfigError(
            f"shards={config.shards} are computed each by one device with all of the "
            f"weights, which mesh.model={model} divides: set one of them to 1"
        )
