"""Dataclass fields that carry their rule, so that it stands once.

A settings class declares `momentum: float = field(0.9, share())`, and calls
`check(self)` when it is constructed; a config, and a program that never saw one, get
the same error. The annotation is a rule too: an int field takes no 2.5 and no True.
"""

import dataclasses
import difflib
import math
import numbers
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from vgg_jax import renamed
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


def count(least: int) -> Rule:
    """`least <= value`, and within JAX's int32."""
    return in_range(least, 2**31)


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


class _Type(NamedTuple):
    """What an annotation allows; bool is an int in Python, and in no config."""

    holds: Callable[[Any], bool]
    one: str
    several: str


_BOOL = _Type(lambda x: isinstance(x, bool), "True or False", "True and False")
_TYPES = {
    bool: _BOOL,
    int: _Type(
        lambda x: isinstance(x, numbers.Integral) and not _BOOL.holds(x),
        "a whole number",
        "whole numbers",
    ),
    float: _Type(
        lambda x: isinstance(x, numbers.Real) and not _BOOL.holds(x),
        "a number",
        "numbers",
    ),
    str: _Type(lambda x: isinstance(x, str), "a string", "strings"),
}


def _type(annotation: Any) -> _Type | None:
    """Returns what an annotation allows; None where it is not one of a config's."""
    if typing.get_origin(annotation) is not Sequence:
        return _TYPES.get(annotation) if isinstance(annotation, type) else None
    element = _TYPES[typing.get_args(annotation)[0]]
    return _Type(
        lambda x: isinstance(x, list | tuple) and all(map(element.holds, x)),
        f"a tuple of {element.several}",
        f"tuples of {element.several}",
    )


def check(settings: Any) -> None:
    """Checks every field of a dataclass instance: its type, then its rule.

    Raises:
        ConfigError: a value breaks either; the message begins with `field=value`.
    """
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        check_value(f.name, value, f.type, f.metadata.get(_RULE))


def check_value(name: str, value: Any, annotation: Any, rule: Rule | None) -> None:
    """Checks one value.

    Raises:
        ConfigError: as `check`.

    >>> check_value("epochs", 2.5, int, in_range(1))
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: epochs=2.5 must be a whole number, at least 1
    """
    allowed = _type(annotation)
    if allowed and not allowed.holds(value):
        text = f", {rule.text}" if rule else ""
        raise ConfigError(f"{name}={value!r} must be {allowed.one}{text}")
    if rule and rule.names:
        choose(rule.names, value, name)
    elif rule and not _holds(rule, value):
        raise ConfigError(f"{name}={value!r} is out of range: it must be {rule.text}")


def _holds(rule, value):
    try:
        return rule.holds(value)
    except TypeError:  # a value that cannot be compared
        return False


def unknown(name: str, known: Collection[str]) -> str:
    """Returns what there is to say about a field that does not exist.

    Args:
        name: dotted: "model.dropuot".
        known: the fields there are.

    >>> unknown("model.dropuot", ["epochs", "model.dropout"])
    'model.dropuot is no field: did you mean model.dropout?'
    >>> unknown("dropout", ["epochs", "model.dropout"])
    'dropout is no field: did you mean model.dropout?'
    """
    if name in renamed.FIELDS:
        return f"{name} is now {renamed.FIELDS[name]}"
    group, _, own = name.rpartition(".")
    near = (
        difflib.get_close_matches(name, known, n=1)
        or [field for field in known if field.rpartition(".")[2] == own]
        or [field for field in known if field == group]
    )
    if near:
        return f"{name} is no field: did you mean {' or '.join(near)}?"
    beside = [field for field in known if field.rpartition(".")[0] == group]
    there = beside or dict.fromkeys(field.partition(".")[0] for field in known)
    return f"{name} is no field; there are: {', '.join(there)}"
