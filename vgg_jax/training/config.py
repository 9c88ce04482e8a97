"""What a config may hold: ranges and names, checked before any work is done."""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from vgg_jax import backend
from vgg_jax.data import batches
from vgg_jax.errors import ConfigError, choose
from vgg_jax.nn import conv, initializers
from vgg_jax.nn import vgg as model
from vgg_jax.runs import trackers
from vgg_jax.training import augment
from vgg_jax.training import sgd as optimizer

_Rule = tuple[Callable[[Any], bool], str]
_AT_LEAST_1: _Rule = (lambda x: x >= 1, "at least 1")
_AT_LEAST_0: _Rule = (lambda x: x >= 0, "0 or more")
_POSITIVE: _Rule = (lambda x: x > 0, "above 0")
_LEAST_LAX_BATCH = 16
_SHARE: _Rule = (lambda x: 0 <= x < 1, "in [0, 1)")

RANGES: dict[str, _Rule] = {
    "seed": (lambda x: 0 <= x < 2**32, "in [0, 2^32)"),
    "epochs": _AT_LEAST_1,
    "batch_size": _AT_LEAST_1,
    "eval_batch_size": _AT_LEAST_1,
    "lr": _POSITIVE,
    "label_smoothing": _SHARE,
    "ema_decay": _SHARE,
    "lookahead": _SHARE,
    "profile": _AT_LEAST_0,
    "augment.crop": _AT_LEAST_0,
    "augment.cutout": _AT_LEAST_0,
    "augment.resize": _AT_LEAST_0,
    "model.num_classes": _AT_LEAST_0,
    "model.width": _POSITIVE,
    "model.logit_scale": _POSITIVE,
    "model.hidden": (lambda x: all(w >= 1 for w in x), "widths of at least 1"),
    "model.dropout": _SHARE,
    "optimizer.momentum": _SHARE,
    "optimizer.weight_decay": _AT_LEAST_0,
    "optimizer.bias_scale": _POSITIVE,
    "optimizer.clip_norm": _AT_LEAST_0,
    "optimizer.muon": _AT_LEAST_0,
    "schedule.warmup_epochs": _AT_LEAST_0,
    "schedule.boundaries": (lambda x: all(e > 0 for e in x), "epochs above 0"),
    "schedule.factor": (lambda x: 0 < x < 1, "in (0, 1)"),
    "schedule.final_scale": (lambda x: 0 <= x <= 1, "in [0, 1]"),
    "schedule.patience": _AT_LEAST_0,
    "schedule.min_delta": _AT_LEAST_0,
    "schedule.cooldown": _AT_LEAST_0,
    "schedule.min_lr": _AT_LEAST_0,
    "checkpoint.minutes": _POSITIVE,
    "log.every_steps": _AT_LEAST_1,
}
MONITORS = tuple(
    f"{split}_{what}"
    for split in ("val", "train")
    for what in ("loss", "accuracy", "top5")
)
NAMES = {
    "test_with": ("best", "last"),
    "views": augment.VIEWS,
    "remainder": batches.REMAINDERS,
    "augment.crop_mode": augment.CROP_MODES,
    "augment.flip": augment.FLIPS,
    "augment.normalize": augment.STATISTICS,
    "model.head": model.HEADS,
    "model.pool": model.POOLS,
    "model.kernel_init": initializers.INITIALIZERS,
    "model.dtype": ("auto", "float32", "bfloat16"),
    "model.conv": conv.IMPLEMENTATIONS,
    "optimizer.decay": optimizer.DECAYS,
    "schedule.name": optimizer.SCHEDULES,
    "schedule.monitor": MONITORS,
    "checkpoint.monitor": ("accuracy", "loss"),
    "log.tracker": trackers.TRACKERS,
}


def resolve(config: ConfigDict) -> ConfigDict:
    """A checked copy with every "auto" of this machine replaced by what it stands for.

    Raises:
        ConfigError: a value is out of its range, unknown, or contradicts another.
    """
    config = config.copy_and_resolve_references()
    for field, (holds, text) in RANGES.items():
        value = _get(config, field)
        if not holds(value):
            raise ConfigError(f"{field}={value!r} is out of range: it must be {text}")
    for field, table in NAMES.items():
        choose(table, _get(config, field), field)
    if config.ema_decay and config.lookahead:
        raise ConfigError(
            f"ema_decay={config.ema_decay} and lookahead={config.lookahead} are two "
            "averages of the weights: set one of them to 0"
        )
    if config.optimizer.bias_scale != 1 and not config.model.batch_norm:
        raise ConfigError(
            f"optimizer.bias_scale={config.optimizer.bias_scale} is of batch norm's "
            "biases, and model.batch_norm=False: set bias_scale=1, or batch_norm=True"
        )
    if config.optimizer.muon and config.optimizer.decay == "l2":
        raise ConfigError(
            f"optimizer.muon={config.optimizer.muon} keeps only the direction of what "
            "joins the gradient, so l2 would not decay: set optimizer.decay='decoupled'"
        )
    _check_validation(config)
    trackers.check(config.log.tracker)
    if config.schedule.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"schedule.warmup_epochs={config.schedule.warmup_epochs} must be below "
            f"epochs={config.epochs}"
        )
    least = model.least_size(config.model.variant)
    if 0 < config.augment.resize < least:
        raise ConfigError(
            f"augment.resize={config.augment.resize} is too small: configuration "
            f"{config.model.variant} needs at least {least}x{least} pixels"
        )
    config.model.dtype = backend.compute_dtype(config.model.dtype)
    _check_convolution(config)
    return config


def _check_validation(config):
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


def _check_convolution(config):
    """jaxlib 0.12's oneDNN: wrong weight gradients for batches of 2 ... 12."""
    small = config.batch_size < _LEAST_LAX_BATCH or config.remainder == "keep"
    kind = config.model.conv, config.model.dtype, jax.default_backend()
    if small and kind == ("lax", "bfloat16", "cpu"):
        raise ConfigError(
            f"model.conv='lax' in bfloat16 on CPU returns wrong gradients for batches "
            f"under {_LEAST_LAX_BATCH} (batch_size={config.batch_size}, remainder="
            f"{config.remainder!r}): use model.conv=auto, or model.dtype=float32"
        )


def _get(config, field):
    for key in field.split("."):
        config = config[key]
    return config
