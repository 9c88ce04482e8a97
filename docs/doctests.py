"""Shows the examples of docstrings as code in the manual.

Google docstrings here hold doctests without a heading of their own, and Markdown takes
`>>>` for quotations; so each example is put into a fence as griffe reads it.
"""

import re

import griffe

_EXAMPLE = re.compile(r"^>>> .*\n(?:.+\n?)*", re.M)


class Doctests(griffe.Extension):
    """Puts every run of lines that begins with `>>>` into a fence."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Changes the docstring of whatever is inside the package."""
        del kwargs
        _fence_examples(obj)

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        """Changes that of the package, which is no object inside one."""
        del kwargs
        _fence_examples(pkg)


def _fence_examples(obj: griffe.Object) -> None:
    if obj.docstring:
        fenced = _EXAMPLE.sub(_fence, obj.docstring.value + "\n")
        obj.docstring.value = fenced.rstrip("\n")


def _fence(match: re.Match) -> str:
    return f"```pycon\n{match[0].rstrip()}\n```\n"
