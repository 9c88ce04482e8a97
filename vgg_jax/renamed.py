"""What older versions called things that configs and workdirs still hold."""

from collections.abc import Mapping
from typing import Any

# (group, field, old value) -> today's value.
_VALUES = {("data", "validation", "blog"): "sklearn_80_20"}
# Old field -> what says the same today.
FIELDS = {"schedule.warmup_epochs": "schedule.warmup, a share of the epochs"}
# What older versions did not have -> the values that say what they did: fields of
# groups that they had, groups, and fields of the top level.
_NEW_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "model": {"frozen": [], "remat": "none"},
    "optimizer": {"layer_rates": [], "state_dtype": "float32"},
    "mesh": {"state": "replicated", "model": 1},
    "data": {"workers": 0},
    "augment": {"scales": [], "colour": 0.0},
}
_NEW: Mapping[str, Any] = {
    "init": {"path": "", "layers": ["*"]},
    "mesh": {"data": 1, "model": 1, "state": "replicated"},
    "shards": 1,
}
_DIGITS = 9  # of a share, so that 0.23 * 24 / 24 is 0.23


def modern(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested fields of a config with what is old replaced by today's.

    >>> modern({"lr": 0.1, "data": {"validation": "blog"}})
    {'lr': 0.1, 'data': {'validation': 'sklearn_80_20'}}
    >>> modern({"epochs": 30, "schedule": {"warmup_epochs": 3.0}})
    {'epochs': 30, 'schedule': {'warmup': 0.1}}
    """
    renamed = dict(fields)
    for (group, field, old), new in _VALUES.items():
        if _group(renamed, group).get(field) == old:
            renamed[group] = {**renamed[group], field: new}
    if _group(renamed, "model"):  # all of a config, not a few fields
        for group, added in _NEW_FIELDS.items():
            if known := _group(renamed, group):
                renamed[group] = {**added, **known}
        renamed = {**_NEW, **renamed}
    schedule: dict[str, Any] = dict(_group(renamed, "schedule"))
    warmup: Any = schedule.get("warmup_epochs")
    epochs: Any = renamed.get("epochs")
    numbers = isinstance(warmup, int | float) and isinstance(epochs, int) and epochs > 0
    if numbers and "warmup" not in schedule:
        del schedule["warmup_epochs"]
        share = round(warmup / epochs, _DIGITS)
        renamed["schedule"] = schedule | {"warmup": share}
    return renamed


def _group(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = fields.get(name)
    return group if isinstance(group, Mapping) else {}
