"""Fields that do nothing in a configuration: one table, one rule.

A field that does nothing has its default, or is refused: a value that was set is a
value that somebody believes in.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vgg_jax.data.picture_folder import PREFIX
from vgg_jax.errors import ConfigError
from vgg_jax.runs.workdir import flatten


class Need(NamedTuple):
    """What a field needs in order to do something.

    Attributes:
        field: another field of the config.
        holds: whether a value of that one is enough.
        remedy: how to set it, as a user types it.
    """

    field: str
    holds: Callable[[Any], bool]
    remedy: str


def _one_of(field: str, *names: str) -> Need:
    return Need(field, lambda x: x in names, f"{field}={' or '.join(names)}")


def _above_0(field: str) -> Need:
    return Need(field, lambda x: x > 0, f"{field} above 0")


_BATCH_NORM = Need("model.batch_norm", bool, "model.batch_norm=True")
_PAPER_HEAD = _one_of("model.head", "paper", "adaptive")
_HIDDEN = Need("model.hidden", bool, "model.hidden to the widths of layers")
_DECAY = _above_0("optimizer.weight_decay")
_STEP = _one_of("schedule.name", "step")
_DROPS = _one_of("schedule.name", "step", "plateau")
_FALLS = _one_of("schedule.name", "cosine", "triangular")
_PLATEAU = _one_of("schedule.name", "plateau")
_VALIDATION = Need(
    "data.validation", lambda x: x != "none", "data.validation=sklearn_80_20"
)
_FILES = Need(
    "data.name",
    lambda x: x != "cifar10_sample" and not x.startswith(PREFIX),
    "another data.name",
)

_PATH = Need("init.path", bool, "init.path to a run or a file")

NEEDS: Mapping[str, tuple[Need, ...]] = {
    "data.data_dir": (_FILES,),
    "data.archive_dir": (_one_of("data.name", "cifar10", "cifar100"),),
    "init.layers": (_PATH,),
    "augment.crop_mode": (_above_0("augment.crop"),),
    "model.norm_scale": (_BATCH_NORM,),
    "model.hidden": (_PAPER_HEAD,),
    "model.dropout": (_PAPER_HEAD, _HIDDEN),
    "optimizer.nesterov": (_above_0("optimizer.momentum"),),
    "optimizer.decay": (_DECAY,),
    "optimizer.decay_all": (_DECAY,),
    "optimizer.bias_scale": (_BATCH_NORM,),
    "schedule.boundaries": (_STEP,),
    "schedule.factor": (_DROPS,),
    "schedule.final_scale": (_FALLS,),
    "schedule.monitor": (_PLATEAU,),
    "schedule.patience": (_PLATEAU,),
    "schedule.min_delta": (_PLATEAU,),
    "schedule.cooldown": (_PLATEAU,),
    "schedule.min_lr": (_PLATEAU,),
    "checkpoint.monitor": (_VALIDATION,),
}


def idle_fields(fields: Mapping[str, Any]) -> dict[str, Need]:
    """Returns the fields that do nothing, with what each would need.

    Args:
        fields: nested plain values of all fields.

    >>> from vgg_jax.training.config import resolve
    >>> from configs import quickstart
    >>> fields = resolve(quickstart.get_config()).fields
    >>> idle_fields(fields)["model.dropout"].remedy
    'model.head=paper or adaptive'
    """
    flat = flatten(dict(fields))
    missing = {
        field: [need for need in needs if not need.holds(flat[need.field])]
        for field, needs in NEEDS.items()
    }
    return {field: needs[0] for field, needs in missing.items() if needs}


def check(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Checks that every field that does nothing has its default.

    Args:
        fields: nested plain values of all fields.
        defaults: by dotted name.

    Raises:
        ConfigError: one has another value; the message names all that have.
    """
    flat = {name: _frozen(value) for name, value in flatten(dict(fields)).items()}
    told = [
        f"{field}={flat[field]!r} does nothing under {need.field}="
        f"{flat[need.field]!r}: leave it at its default, {defaults[field]!r}, or set "
        f"{need.remedy}"
        for field, need in idle_fields(fields).items()
        if flat[field] != defaults[field]
    ]
    if told:
        raise ConfigError("; ".join(told))


def check_drops(boundaries: Sequence[float], *, warmup: float, epochs: int) -> None:
    """Checks that the rate drops at every boundary of a step schedule.

    Args:
        boundaries: epochs at which it should.
        warmup: share of the epochs in which the rate still rises.
        epochs: length of the run.

    Raises:
        ConfigError: a boundary is outside of where the rate can drop, or none is given.
    """
    lost = [epoch for epoch in boundaries if not warmup * epochs < epoch < epochs]
    if lost or not boundaries:
        named = ", ".join(map(str, lost)) or "no epoch"
        raise ConfigError(
            f"schedule.boundaries={tuple(boundaries)}: with epochs={epochs} and "
            f"schedule.warmup={warmup} nothing drops at {named}: name epochs above "
            f"{warmup * epochs:g} and below {epochs}"
        )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
