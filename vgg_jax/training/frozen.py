"""Parameters that do not train, chosen by patterns over their names.

A frozen parameter is left out of what the optimiser and the averages see: it has no
gradient, no update, no momentum and no decay, and its bits are the same before and
after a run.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from vgg_jax.errors import ConfigError

Params = Mapping[str, Any]  # layer -> name -> array: {"conv1_1": {"kernel": ...}}


def split(params: Params, patterns: Sequence[str]) -> tuple[dict, dict]:
    """Splits parameters into those that train and those that are frozen.

    Args:
        params: nested by layer and name.
        patterns: shell patterns for layers or for parameters: `conv1_1/kernel`,
            `conv[12]_*`, `*/bias`.

    Returns:
        Two trees without the other's leaves; `merge` joins them.

    Raises:
        ConfigError: a pattern matches no parameter.

    >>> params = {"conv1_1": {"kernel": 1, "bias": 2}, "fc8": {"kernel": 3}}
    >>> split(params, ["conv1_1/kernel"])
    ({'conv1_1': {'bias': 2}, 'fc8': {'kernel': 3}}, {'conv1_1': {'kernel': 1}})
    """
    leaves = flatten_dict(params, sep="/")
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in leaves):
            raise ConfigError(
                f"frozen={pattern!r} matches no parameter; the layers are: "
                f"{', '.join(params)}"
            )
    frozen = {n for n in leaves if any(_matches(n, p) for p in patterns)}
    trained = {name: leaf for name, leaf in leaves.items() if name not in frozen}
    return (
        unflatten_dict(trained, sep="/"),
        unflatten_dict({name: leaves[name] for name in frozen}, sep="/"),
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


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern is for the parameter `layer/name`, or for its layer."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[0], pattern)
