"""Parameters chosen by patterns over their names, and trees split and joined by them.

What does not train is said so, and what trains at another rate. A frozen parameter is
left out of what the optimiser and the averages see: it has no gradient, no update, no
momentum and no decay, and its bits are the same before and after a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from vgg_jax.errors import ConfigError

Params = Mapping[str, Any]  # layer -> name -> array: {"conv1_1": {"kernel": ...}}


def matches(name: str, pattern: str) -> bool:
    """Returns whether a pattern is for the parameter `layer/name`, or for its layer.

    >>> matches("conv1_1/kernel", "conv1_*"), matches("conv1_1/kernel", "*/bias")
    (True, False)
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[0], pattern)


def chosen(names: Iterable[str], patterns: Sequence[str], field: str) -> set[str]:
    """Returns the parameters that at least one of the patterns is for.

    Args:
        names: of parameters: `conv1_1/kernel`.
        patterns: shell patterns for layers or for parameters: `conv1_1/kernel`,
            `conv[12]_*`, `*/bias`.
        field: what is set to the patterns, for the message.

    Raises:
        ConfigError: a pattern matches no parameter.

    >>> sorted(chosen(["conv1_1/bias", "fc8/bias"], ["fc*"], "frozen"))
    ['fc8/bias']
    """
    names = list(names)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            layers = dict.fromkeys(name.rpartition("/")[0] for name in names)
            raise ConfigError(
                f"{field}={pattern!r} matches no parameter; the layers are: "
                f"{', '.join(layers)}"
            )
    return {n for n in names if any(matches(n, p) for p in patterns)}


def split(
    params: Params, patterns: Sequence[str], field: str = "frozen"
) -> tuple[dict, dict]:
    """Splits parameters into those that no pattern is for, and the others.

    Args:
        params: nested by layer and name.
        patterns: as in `chosen`.
        field: as in `chosen`.

    Returns:
        Two trees without the other's leaves; `merge` joins them.

    Raises:
        ConfigError: a pattern matches no parameter.

    >>> params = {"conv1_1": {"kernel": 1, "bias": 2}, "fc8": {"kernel": 3}}
    >>> split(params, ["conv1_1/kernel"])
    ({'conv1_1': {'bias': 2}, 'fc8': {'kernel': 3}}, {'conv1_1': {'kernel': 1}})
    """
    leaves = flatten_dict(params, sep="/")
    picked = chosen(leaves, patterns, field)
    others = {name: leaf for name, leaf in leaves.items() if name not in picked}
    return (
        unflatten_dict(others, sep="/"),
        unflatten_dict({n: leaves[n] for n in leaves if n in picked}, sep="/"),
    )


def merge(params: Params, *others: Params) -> dict:
    """Joins trees of parameters; the leaves of a later tree replace earlier ones.

    >>> merge({"fc8": {"kernel": 1, "bias": 2}}, {"fc8": {"bias": 3}})
    {'fc8': {'kernel': 1, 'bias': 3}}
    """
    leaves = {}
    for tree in (params, *others):
        leaves |= flatten_dict(tree, sep="/")
    return unflatten_dict(leaves, sep="/")


def replace(params: Params, others: Params) -> dict:
    """Returns the parameters, with the leaves of `others` where those have the name.

    >>> replace({"fc8": {"kernel": 1, "bias": 2}}, {"fc8": {"bias": 3, "var": 4}})
    {'fc8': {'kernel': 1, 'bias': 3}}
    """
    leaves, new = (flatten_dict(tree, sep="/") for tree in (params, others))
    return unflatten_dict({k: new.get(k, v) for k, v in leaves.items()}, sep="/")
