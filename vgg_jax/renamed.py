"""What older versions called things that configs and workdirs still hold."""

from collections.abc import Mapping
from typing import Any

# (group, field, old value) -> today's value.
_VALUES = {("data", "validation", "blog"): "sklearn_80_20"}


def modern(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested fields of a config with old values replaced by today's.

    >>> modern({"lr": 0.1, "data": {"validation": "blog"}})
    {'lr': 0.1, 'data': {'validation': 'sklearn_80_20'}}
    """
    renamed = dict(fields)
    for (group, field, old), new in _VALUES.items():
        if renamed.get(group, {}).get(field) == old:
            renamed[group] = {**renamed[group], field: new}
    return renamed
