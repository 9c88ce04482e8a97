"""Errors that a user can mend; `main.py` prints them without a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Base of the errors that are not bugs: the message names value and remedy.

    Attributes:
      exit_code: status the program ends with.
      label: what the line begins with.
    """

    exit_code = 1
    label = "error"


class RunError(UserError):
    """The machine, the data or a file is wrong."""

    exit_code = 1


class ConfigError(UserError):
    """A value in the config is wrong."""

    exit_code = 2


def guarded(call: Callable, *arguments) -> None:
    """Calls a command line's main; a user's error is one line and its exit code."""
    try:
        call(*arguments)
    except UserError as error:
        print(f"{error.label}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from what is saved", file=sys.stderr)
        sys.exit(130)


def choose(table, name: str, field: str):
    """`table[name]` (or `name` itself where `table` is not a mapping).

    Raises:
      ConfigError: `name` is unknown; the message lists the known names.
    """
    if name not in table:
        known = ", ".join(map(str, table))
        raise ConfigError(f"{field}={name!r} is unknown; choose one of: {known}")
    return table[name] if hasattr(table, "keys") else name
