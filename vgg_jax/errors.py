"""Errors that a user can mend; a command prints them without a traceback."""

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, overload

RESUMES = ". What was saved stays: mend it and run the same command again"


class UserError(Exception):
    """Base of the errors that are not bugs: the message names value and remedy.

    Attributes:
        exit_code: status that a command ends with.
        label: what the printed line begins with.
        shared: whether all processes that compute a run end with it together, so that
            it is no failure of one of them.
    """

    exit_code = 1
    label = "error"
    shared = False


class RunError(UserError):
    """The machine, the data or a file is wrong."""

    exit_code = 1


class ConfigError(UserError, ValueError):
    """A value is wrong: in a config, on a command line, or in a call."""

    exit_code = 2


@contextlib.contextmanager
def system_errors(where: object = "", remedy: str = "") -> Iterator[None]:
    """Turns what the operating system refuses into a `RunError`.

    A disk may be full or read-only, too many files may be open, memory may be short.

    Args:
        where: what is worked on, for an error that names no file.
        remedy: what to add; for a command that goes on from what it saved, `RESUMES`.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        file = getattr(error, "filename", None) or where
        raise RunError(f"{file}{': ' if file else ''}{reason}{remedy}") from error


def guarded(call: Callable[..., Any], *arguments: Any) -> None:
    """Calls a command line's main; a user's error is one line and its exit code."""
    try:
        with system_errors(remedy=RESUMES):
            call(*arguments)
    except UserError as error:
        print(f"{error.label}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped: the same command resumes from what is saved", file=sys.stderr)
        sys.exit(130)


@overload
def choose[K, V](table: Mapping[K, V], name: K, field: str) -> V: ...
@overload
def choose[K](table: Collection[K], name: K, field: str) -> K: ...
def choose(table: Any, name: Any, field: str) -> Any:
    """Returns `table[name]`, or `name` itself where `table` is not a mapping.

    Args:
        table: the known names.
        name: which of them.
        field: what is set to `name`, for the message.

    Raises:
        ConfigError: `name` is unknown; the message lists the known names.

    >>> choose({"max": 1, "average": 2}, "mean", "pool")
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: pool='mean' is unknown; choose one of: max, average
    """
    if name not in table:
        known = ", ".join(map(str, table))
        raise ConfigError(f"{field}={name!r} is unknown; choose one of: {known}")
    return table[name] if isinstance(table, Mapping) else name
