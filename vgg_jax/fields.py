"""Dataclass fields that carry their rule, so that it stands once.

A settings class declares `momentum: float = field(0.9, share())`, and calls
`check(self)` when it is constructed; a config, and a program that never saw one, get
the same error.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from vgg_jax.errors import ConfigError, choose

_RULE = "rule"


class Rule(NamedTuple):
    """What values a field may have.

    Attributes:
        holds: whether a value is allowed.
        text: the allowed values in words: "at least 1", "one of: max, average".
        names: the allowed names, for a field that holds one; otherwise empty.
    """

    holds: Callable[[Any], bool]
    text: str
    names: tuple = ()


def in_range(low: float, below: float = math.inf) -> Rule:
    """`low <= value < below`."""
    if below == math.inf:
        return Rule(lambda x: low <= x < below, f"at least {low}")
    return Rule(lambda x: low <= x < below, f"in [{low}, {below})")


def positive() -> Rule:
    """`0 < value`, and finite."""
    return Rule(lambda x: 0 < x < math.inf, "above 0")


def share() -> Rule:
    """`0 <= value < 1`."""
    return in_range(0, 1)


def widths() -> Rule:
    """A sequence of numbers of units."""
    return Rule(lambda x: all(w >= 1 for w in x), "widths of at least 1")


def one_of(names: Collection) -> Rule:
    """One of these names."""
    text = "one of: " + ", ".join(map(str, names))
    return Rule(lambda x: x in names, text, tuple(names))


def field(default: Any, rule: Rule) -> Any:
    """A dataclass field with a default and a rule.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Decay:
    ...     momentum: float = field(0.9, share())
    ...     def __post_init__(self): check(self)
    >>> Decay(momentum=1.5)
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: momentum=1.5 is out of range: it must be in [0, 1)
    """
    return dataclasses.field(default=default, metadata={_RULE: rule})


def required(rule: Rule) -> Any:
    """A dataclass field with a rule that every caller must set."""
    return dataclasses.field(metadata={_RULE: rule})


def rules(settings: Any) -> dict[str, Rule]:
    """Returns the rules of a dataclass or an instance, by the name of the field."""
    return {
        f.name: f.metadata[_RULE]
        for f in dataclasses.fields(settings)
        if _RULE in f.metadata
    }


def check(settings: Any) -> None:
    """Checks every field of a dataclass instance that has a rule.

    Raises:
        ConfigError: a value breaks its rule; the message begins with `field=value`.
    """
    for name, rule in rules(settings).items():
        value = getattr(settings, name)
        if rule.names:
            choose(rule.names, value, name)
        elif not _holds(rule, value):
            raise ConfigError(
                f"{name}={value!r} is out of range: it must be {rule.text}"
            )


def _holds(rule, value):
    try:
        return rule.holds(value)
    except TypeError:  # a value that cannot be compared
        return False
