"""Loads a config file and sets fields of it, without any global flag."""

import argparse
import ast
import difflib
import inspect
import re
import runpy
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgg_jax.errors import ConfigError, UserError
from vgg_jax.fields import unknown

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_EXTRA = "ml_collections"  # of [train]: a command says so itself
_CHECKOUT = Path(__file__).resolve().parents[2]
_FIELD = re.compile(
    r"    config\.(?P<name>[\w.]+) = (?P<default>.+?)(  # (?P<comment>.+))?"
)
_SETTING = re.compile(r"--?(?:no)?config\.([^=]*)")


def add_arguments(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Adds `--config`, and the list of what can be set in one."""
    parser.add_argument(
        "--config",
        default="",
        required=required,
        help="name or file of a config: vgg16, configs/vgg16.py:D",
    )
    parser.add_argument(
        "--help_config",
        "--helpfull",
        action=_ShowFields,
        nargs=0,
        help="show every field of a config with its default and exit",
    )


class _ShowFields(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for field, (default, comment) in described().items():
            value = shlex.quote(str(ast.literal_eval(default)))
            print(f"--config.{field}={value}\n    {comment}")
        parser.exit()


def described() -> dict[str, tuple[str, str]]:
    """Returns default and comment of every field, as configs/default.py writes them."""
    fields, above = {}, ""
    for line in _path("default").read_text().splitlines():
        found = _FIELD.fullmatch(line)
        if found and found["default"] != "ConfigDict()":
            comment = " ".join(filter(None, [above, found["comment"]]))
            fields[found["name"]] = found["default"], comment
        own_line = line.strip().startswith("# ")
        above = f"{above} {line.strip()[2:]}".strip() if own_line else ""
    return fields


def load(config: str, settings: Sequence[str] = ()) -> "ConfigDict":
    """Returns the `ConfigDict` of a config file with fields set.

    Args:
        config: path of the file, `configs/vgg16.py`, or the name of one in `configs/`,
            `vgg16`; after a colon the argument of its `get_config`: `vgg16:D`.
        settings: `--config.lr=0.03`, `--config.model.variant=E`, as on a command line.

    Raises:
        ConfigError: there is no such file, field or value, or the file is wrong.
    """
    from absl import flags
    from ml_collections import config_flags

    values, argv = flags.FlagValues(), ["vgg", *settings]
    default = _get_config(config)
    _check_names(default, settings)
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", default, flag_values=values, sys_argv=argv
        )
        rest = values(argv)
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}: options begin with --")
    return holder.value


def _check_names(config: Any, settings: Sequence[str]) -> None:
    """Checks that every setting is about a field, and not about a group of them."""
    groups = [name for name, value in config.items() if hasattr(value, "items")]
    fields = [k for k in config if k not in groups]
    fields += [f"{group}.{field}" for group in groups for field in config[group]]
    for name in (m[1] for s in settings if (m := _SETTING.match(s))):
        if name in groups:
            inner = ", ".join(f"{name}.{field}" for field in config[name])
            raise ConfigError(f"{name} is a group of fields: {inner}")
        if name not in fields:
            raise ConfigError(unknown(name, fields))


def available() -> list[str]:
    """Returns the names of the configs in `configs/`, here or in the checkout."""
    for root in (Path(), _CHECKOUT):
        if names := sorted(p.stem for p in (root / "configs").glob("[a-z]*.py")):
            return names
    return []


def _path(config: str) -> Path:
    file = config.partition(":")[0]
    places = [Path(file)]
    if bare := re.fullmatch(r"(\w+)(\.py)?", file):
        places += [root / "configs" / f"{bare[1]}.py" for root in (Path(), _CHECKOUT)]
    for path in places:
        if path.is_file():
            return path.resolve()
    raise ConfigError(f"--config={config}: {_missing(file)}")


def _missing(file: str) -> str:
    """Returns what there is to say about a config file that does not exist."""
    said = f"there is no file {file}"
    if Path(file).is_dir():
        said = f"{file} is a directory"
    names = available()
    if not names:
        return f"{said}; the configs come with a checkout of the repository"
    near = difflib.get_close_matches(Path(file).stem, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{said}; {meant}there are: {', '.join(names)}"


def _get_config(config: str) -> "ConfigDict":
    """Calls `get_config` of a config file, which may import its neighbours."""
    from ml_collections import ConfigDict

    path, argument = _path(config), config.partition(":")[2]
    sys.path.insert(0, str(path.parent.parent))  # for `from configs import default`
    try:
        get_config = _said(runpy.run_path, path)(str(path)).get("get_config")
        if not callable(get_config):
            raise ConfigError(f"{path} defines no get_config()")
        arguments = [argument] if argument else []
        _check_argument(config, get_config, arguments)
        made = _said(get_config, path)(*arguments)
    finally:
        sys.path.remove(str(path.parent.parent))
    if not isinstance(made, ConfigDict):
        raise ConfigError(
            f"{path}: get_config() returns {made!r:.40}, no ConfigDict: end it with "
            "`return config`"
        )
    return made


def _check_argument(config: str, get_config: Callable, arguments: Sequence) -> None:
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        file, _, argument = config.partition(":")
        remedy = f"leave out :{argument}" if argument else f"write {file}:<argument>"
        said = f"--config={config}: get_config: {error}: {remedy}"
        raise ConfigError(said) from error


def _said(call: Callable[..., Any], path: Path) -> Callable[..., Any]:
    """Returns `call`, what it raises in one line that names file and line."""

    def calling(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == _EXTRA:
                raise
            places = traceback.extract_tb(error.__traceback__)
            at = [f", line {p.lineno}" for p in places if p.filename == str(path)]
            place = f"{path}{at[-1]}" if at else str(path)
            if isinstance(error, SyntaxError) and error.filename:
                place = f"{error.filename}, line {error.lineno}"
            said = error.msg if isinstance(error, SyntaxError) else str(error)
            text = " ".join(f"{type(error).__name__}: {said}".split())
            raise ConfigError(f"{place}: {text}") from error

    return calling


def name(config: str) -> str:
    """Returns what the runs of a config are called.

    >>> name("configs/vgg16.py:D")
    'vgg16-D'
    """
    file, _, argument = config.partition(":")
    return "-".join(filter(None, [Path(file).stem, argument]))
