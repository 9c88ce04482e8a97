"""What a config may hold: each group a dataclass that checks itself.

`ml_collections.ConfigDict` is the shell in which a config is written and set on the
command line; `resolve` turns it into a `Config`, which is what the code reads. The rule
of a field stands once, in the dataclass of its group.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from vgg_jax import backend
from vgg_jax.data.batches import REMAINDERS
from vgg_jax.data.datasets import Source
from vgg_jax.errors import ConfigError, choose
from vgg_jax.fields import (
    check,
    check_value,
    count,
    field,
    in_range,
    one_of,
    positive,
    required,
    share,
    unknown,
)
from vgg_jax.nn.preprocessing import INIT, OWN, PREPROCESSING
from vgg_jax.nn.vgg import VGG
from vgg_jax.nn.views import VIEWS
from vgg_jax.renamed import modern
from vgg_jax.runs import trackers
from vgg_jax.runs.workdir import flatten
from vgg_jax.training import contradictions, idle
from vgg_jax.training.augment import Augment
from vgg_jax.training.init_from import Init
from vgg_jax.training.placement import PLACEMENTS
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

_LEAST_LAX_BATCH = 16
DTYPES = ("auto", "float32", "bfloat16")
NORMALIZE = ("auto", OWN, INIT, *PREPROCESSING)
# What normalize="auto" is for these sets; for others it is the data's own.
_PUBLISHED = {"cifar10": "cifar10", "cifar10_sample": "cifar10"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """When a run saves itself, and which checkpoint counts as the best.

    Attributes:
        monitor: metric of the validation split: "accuracy" or "loss".
        minutes: between saves inside a long epoch.
    """

    monitor: str = field("accuracy", one_of(("accuracy", "loss")))
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
class Devices:
    """Which devices a run uses.

    Attributes:
        data: number of devices, or groups of them, that share each batch; 0: all.
        model: devices of a group, which divide the columns of the dense layers.
        state: what each of them holds of the weights and of the optimiser's state, one
            of `placement.PLACEMENTS`.
    """

    data: int = field(0, in_range(0))
    model: int = field(1, in_range(1))
    state: str = field("replicated", one_of(PLACEMENTS))

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
    epochs: int = required(count(1))
    batch_size: int = required(in_range(1))
    shards: int = required(in_range(1))
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
    mesh: Devices
    init: Init
    augment: Augment
    num_classes: int
    model: VGG
    optimizer: SGD
    schedule: Schedule
    checkpoint: Checkpointing
    log: Logging

    def __post_init__(self) -> None:
        check(self)
        contradictions.check(self)


GROUPS = {
    "data": Source,
    "mesh": Devices,
    "init": Init,
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
    fields = _named(fields)
    classes = fields["model"]["num_classes"]
    check_value("model.num_classes", classes, int, in_range(0))
    known_classes = {"num_classes": classes or VGG.num_classes}
    values = {**fields, "model": fields["model"] | known_classes}
    groups = {
        name: _group(group, values[name], f"{name}.") for name, group in GROUPS.items()
    }
    return Config(**{**values, **groups}, fields=fields, num_classes=classes)


def names() -> tuple[str, ...]:
    """Returns the dotted names of all fields.

    >>> names()[:2], names()[-1]
    (('seed', 'epochs'), 'log.tracker')
    """
    top = (f.name for f in dataclasses.fields(Config) if f.name not in _NOT_FIELDS)
    inner = (
        f"{name}.{f.name}"
        for name, group in GROUPS.items()
        for f in dataclasses.fields(group)
        if group is not VGG or f.name not in _FLAX
    )
    return (*top, *inner)


def defaults() -> dict[str, Any]:
    """Returns the defaults of the groups' fields that have one, by dotted name."""
    return {
        f"{name}.{f.name}": f.default
        for name, group in GROUPS.items()
        for f in dataclasses.fields(group)
        if f.default is not dataclasses.MISSING
    }


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns plain values of all fields, and no others, under today's names."""
    fields = modern(json.loads(json.dumps(fields)))
    for name in GROUPS:
        if not isinstance(fields.get(name, {}), Mapping):
            raise ConfigError(f"{name}={fields[name]!r} is no group of fields")
    known, flat = names(), flatten(fields)
    for name in flat:
        if name not in known:
            raise ConfigError(unknown(name, known))
    for name in (*GROUPS, *known):
        if name not in flat and name not in fields:
            raise ConfigError(f"{name} is missing: configs/default.py has it")
    return fields


def _group(group: type, values: Mapping[str, Any], prefix: str) -> Any:
    """Returns a group's dataclass; its errors name the field as a config does."""
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        made = group(**frozen)
        check(made)
        return made
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def resolve(config: ConfigDict) -> Config:
    """Returns the checked config, with every "auto" of this machine replaced.

    Raises:
        ConfigError: as `build`; or something is asked for that this machine lacks; or
            a field is set that does nothing here (`idle`).
    """
    fields = _named(_plain(config))
    dtype = choose(DTYPES, fields["model"]["dtype"], "model.dtype")
    fields["model"]["dtype"] = backend.compute_dtype(dtype)
    augment = fields["augment"]
    if choose(NORMALIZE, augment["normalize"], "augment.normalize") == "auto":
        name = str(fields["data"]["name"]).partition(":")[0]
        own = _PUBLISHED.get(name, OWN)
        augment["normalize"] = INIT if fields["init"]["path"] else own
    resolved = build(fields)
    trackers.check(resolved.log.tracker)
    check_convolution(resolved, resolved.batch_size // resolved.shards)
    idle.check(resolved.fields, defaults())
    schedule = resolved.schedule
    if schedule.name == "step":
        idle.check_drops(
            schedule.boundaries, warmup=schedule.warmup, epochs=resolved.epochs
        )
    return resolved


def _plain(config: ConfigDict) -> dict[str, Any]:
    """Returns nested fields; each is what JSON can hold."""
    try:
        fields = config.copy_and_resolve_references().to_dict()
    except RequiredValueError as error:
        raise ConfigError(f"a field of the config is not set: {error}") from error
    for name, value in flatten(fields).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{name}={value!r} must be a plain number, string, bool or tuple "
                f"({error})"
            ) from error
    return fields


def check_convolution(config: Config, images: int) -> None:
    """Checks that a device convolves enough images at once.

    jaxlib 0.12's oneDNN returns wrong weight gradients for 2 to 12 of them.

    Raises:
        ConfigError: it does not.
    """
    small = images < _LEAST_LAX_BATCH or config.remainder == "keep"
    kind = config.model.conv, config.model.dtype, jax.default_backend()
    if small and kind == ("lax", "bfloat16", "cpu"):
        raise ConfigError(
            f"model.conv='lax' in bfloat16 on CPU returns wrong gradients for batches "
            f"under {_LEAST_LAX_BATCH} ({images} at once, remainder="
            f"{config.remainder!r}): use model.conv=auto, or model.dtype=float32"
        )
