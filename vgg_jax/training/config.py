"""What a config may hold: each group a dataclass that checks itself.

`ml_collections.ConfigDict` is the shell in which a config is written and set on the
command line; `resolve` turns it into a `Config`, which is what the code reads. The rule
of a field stands once, in the dataclass of its group.
"""

import dataclasses
import json
from collections.abc import Mapping, Set
from typing import Any

import jax
from ml_collections import ConfigDict

from vgg_jax import backend
from vgg_jax.data.batches import REMAINDERS
from vgg_jax.data.datasets import Source
from vgg_jax.errors import ConfigError, choose
from vgg_jax.evaluation.views import VIEWS
from vgg_jax.fields import check, in_range, one_of, positive, required, share
from vgg_jax.nn import architecture
from vgg_jax.nn.vgg import VGG
from vgg_jax.renamed import modern
from vgg_jax.runs import trackers
from vgg_jax.training.augment import Augment
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

_LEAST_LAX_BATCH = 16
DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """When a run saves itself, and which checkpoint counts as the best.

    Attributes:
        monitor: metric of the validation split: "accuracy" or "loss".
        minutes: between saves inside a long epoch.
    """

    monitor: str = required(one_of(("accuracy", "loss")))
    minutes: float = required(positive())

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logging:
    """Where metrics go.

    Attributes:
        every_steps: steps between rows of metrics.jsonl inside an epoch.
        tracker: one of `trackers.TRACKERS`.
    """

    every_steps: int = required(in_range(1))
    tracker: str = required(one_of(trackers.TRACKERS))

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run. `configs/default.py` says what each field means.

    Attributes:
        fields: the same as nested plain values, as `config.json` keeps them.
        num_classes: 0: as many as the data set has.
        model: the network; its `num_classes` is not known before the data set is.

    Raises:
        ConfigError: a value is out of its range, unknown, or contradicts another.
    """

    fields: Mapping[str, Any]
    seed: int = required(in_range(0, 2**32))
    epochs: int = required(in_range(1))
    batch_size: int = required(in_range(1))
    remainder: str = required(one_of(REMAINDERS))
    eval_batch_size: int = required(in_range(1))
    lr: float = required(positive())
    label_smoothing: float = required(share())
    ema_decay: float = required(share())
    lookahead: float = required(share())
    views: int = required(one_of(VIEWS))
    test_with: str = required(one_of(("best", "last")))
    profile: int = required(in_range(0))
    data: Source
    augment: Augment
    num_classes: int
    model: VGG
    optimizer: SGD
    schedule: Schedule
    checkpoint: Checkpointing
    log: Logging

    def __post_init__(self) -> None:
        check(self)
        self._check_averages()
        self._check_validation()
        if self.optimizer.bias_scale != 1 and not self.model.batch_norm:
            raise ConfigError(
                f"optimizer.bias_scale={self.optimizer.bias_scale} multiplies the rate "
                "of batch norm's biases, and model.batch_norm=False: set bias_scale=1, "
                "or batch_norm=True"
            )
        if self.schedule.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"schedule.warmup_epochs={self.schedule.warmup_epochs} must be below "
                f"epochs={self.epochs}"
            )
        least = architecture.least_size(self.model.variant)
        if 0 < self.augment.resize < least:
            raise ConfigError(
                f"augment.resize={self.augment.resize} is too small: configuration "
                f"{self.model.variant} needs at least {least}x{least} pixels"
            )

    def _check_averages(self):
        if self.ema_decay and self.lookahead:
            raise ConfigError(
                f"ema_decay={self.ema_decay} and lookahead={self.lookahead} are two "
                "averages of the weights: set one of them to 0"
            )

    def _check_validation(self):
        if self.data.validation != "none":
            return
        plateau = self.schedule.name == "plateau"
        if plateau and self.schedule.monitor.startswith("val_"):
            raise ConfigError(
                f"schedule.monitor={self.schedule.monitor!r} needs a validation split, "
                "and data.validation='none': monitor train_loss or use another schedule"
            )
        if self.test_with == "best":
            raise ConfigError(
                "test_with='best' needs a validation split, and data.validation="
                "'none': set test_with=last"
            )


GROUPS = {
    "data": Source,
    "augment": Augment,
    "model": VGG,
    "optimizer": SGD,
    "schedule": Schedule,
    "checkpoint": Checkpointing,
    "log": Logging,
}
_NOT_FIELDS = {"fields", "num_classes", *GROUPS}  # of Config: not in the top level
_FLAX = {"parent", "name"}  # of VGG: every Flax module has them


def build(fields: Mapping[str, Any]) -> Config:
    """Returns the config with these fields, as `config.json` keeps them.

    Raises:
        ConfigError: a value is out of its range, unknown, or contradicts another; a
            field is missing or unknown.
    """
    fields = modern(json.loads(json.dumps(fields)))
    top = {f.name for f in dataclasses.fields(Config)} - _NOT_FIELDS
    _check_names(fields, top | GROUPS.keys(), "")
    for name, group in GROUPS.items():
        known = {f.name for f in dataclasses.fields(group)}
        known -= _FLAX if group is VGG else set()
        _check_names(fields[name], known, f"{name}.")
    classes = fields["model"]["num_classes"]
    if classes < 0:
        raise ConfigError(f"model.num_classes={classes} is out of range: 0 or more")
    known_classes = {"num_classes": classes or VGG.num_classes}
    values = {**fields, "model": fields["model"] | known_classes}
    groups = {
        name: _group(group, values[name], f"{name}.") for name, group in GROUPS.items()
    }
    return Config(**{**values, **groups}, fields=fields, num_classes=classes)


def _check_names(values: Mapping[str, Any], known: Set[str], prefix: str) -> None:
    """Checks that a group has all its fields, and no others."""
    for name in known - values.keys():
        raise ConfigError(f"{prefix}{name} is missing: configs/default.py has it")
    for name in values.keys() - known:
        raise ConfigError(
            f"{prefix}{name} is no field; there are: {', '.join(sorted(known))}"
        )


def _group(group: type, values: Mapping[str, Any], prefix: str) -> Any:
    """Returns a group's dataclass; its errors name the field as a config does."""
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return group(**frozen)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def resolve(config: ConfigDict) -> Config:
    """Returns the checked config, with every "auto" of this machine replaced.

    Raises:
        ConfigError: as `build`; or something is asked for that this machine lacks.
    """
    fields = json.loads(config.copy_and_resolve_references().to_json())
    if dtype := fields.get("model", {}).get("dtype"):
        choose(DTYPES, dtype, "model.dtype")
        fields["model"]["dtype"] = backend.compute_dtype(dtype)
    resolved = build(fields)
    trackers.check(resolved.log.tracker)
    _check_convolution(resolved)
    return resolved


def _check_convolution(config: Config) -> None:
    """jaxlib 0.12's oneDNN: wrong weight gradients for batches of 2 ... 12."""
    small = config.batch_size < _LEAST_LAX_BATCH or config.remainder == "keep"
    kind = config.model.conv, config.model.dtype, jax.default_backend()
    if small and kind == ("lax", "bfloat16", "cpu"):
        raise ConfigError(
            f"model.conv='lax' in bfloat16 on CPU returns wrong gradients for batches "
            f"under {_LEAST_LAX_BATCH} (batch_size={config.batch_size}, remainder="
            f"{config.remainder!r}): use model.conv=auto, or model.dtype=float32"
        )
