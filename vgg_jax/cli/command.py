"""The command line: a table of commands, one parser, one guard."""

import argparse
import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import vgg_jax
from vgg_jax.errors import ConfigError, RunError, choose, guarded
from vgg_jax.terminal import lasting_output

# Name -> what it does. Each is a module of this folder: it has a docstring with an
# example, `add_arguments(parser)` and `run(options)`. Where it adds `--config`, the
# `--config.<field>=<value>` of the command line are `options.settings`.
COMMANDS = {
    "train": "train a network, or resume its run",
    "summary": "a network's layers and costs, before it runs",
    "plan": "what a training would take on devices that you do not have yet",
    "score": "a run's weights again, with other views of an image",
    "evaluate": "any weights on the images of a data set",
    "predict": "what is in your pictures",
    "explain": "why a network says what it says of a picture",
    "report": "the page of a run, or a comparison of several",
    "sweep": "grids and searches of settings and seeds",
    "export": "a network for other programs: StableHLO, ONNX, safetensors, a page",
    "folder": "a data set from your own folders of pictures",
    "doctor": "what this machine is, what is chosen for it, and how fast it trains",
}
_EXTRAS = {"report": "report", "explain": "report", "export": "onnx"}  # others: train


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are a `ConfigError`, one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; a user's error is one line, and sets the exit code.

    Args:
        argv: the command and its options; by default, those of this process.
    """
    with lasting_output():
        guarded(_run, sys.argv[1:] if argv is None else argv)


def parser_of(name: str) -> argparse.ArgumentParser:
    """Returns the parser of a command.

    Raises:
        ConfigError: there is no such command.
    """
    module = _module(name)
    parser = _Parser(
        f"vgg {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def _module(name: str) -> Any:
    choose(COMMANDS, name, "command")
    return importlib.import_module(f"vgg_jax.cli.{name}")


def _run(argv: Sequence[str]) -> None:
    if sys.platform == "win32":  # which has no fcntl
        raise RunError("vgg_jax runs on Linux and macOS; on Windows, use WSL")
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
    elif argv[0] == "--version":
        print(vgg_jax.__version__)
    else:
        with _naming_the_extra(argv[0]):
            _run_command(*argv)


def _run_command(name: str, *arguments: str) -> None:
    options, settings = parser_of(name).parse_known_args(arguments)
    if settings and not hasattr(options, "config"):
        raise ConfigError(f"unknown option {settings[0]!r} (see vgg {name} --help)")
    options.settings = settings
    with _quiet():
        from vgg_jax import backend  # imports JAX

        backend.configure()
        _module(name).run(options)


@contextlib.contextmanager
def _naming_the_extra(name: str) -> Iterator[None]:
    """Says what to install where a command needs more than the networks do."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vgg_jax":
            raise
        extra = _EXTRAS.get(name, "train")
        raise ConfigError(
            f"vgg {name} needs {error.name}, which is not installed here: "
            f"pip install 'vgg_jax[{extra}]'"
        ) from error


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vgg <command> [options], or python -m vgg_jax <command> [options]",
            "",
            *rows,
            "",
            "Start with: vgg summary; in a checkout of the repository:",
            "  vgg train --config=configs/quickstart.py",
            "Each command has a --help.",
        ]
    )


def _unraisable(unraisable: Any) -> None:
    """Leaves out what TensorStore's threads raise after a failed checkpoint."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves to our own lines what libraries would say too."""
    from absl import logging as absl_logging

    # Where a disk is full, Orbax logs the same traceback from each of its threads, and
    # leaves tasks behind. It raises the error too: the one line comes from us.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    before, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        yield
    finally:
        sys.unraisablehook = before
