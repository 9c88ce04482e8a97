"""Loads a config file and sets fields of it, without any global flag."""

import inspect
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vgg_jax.errors import ConfigError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def load(config: str, settings: Sequence[str] = ()) -> "ConfigDict":
    """Returns the `ConfigDict` of a config file with fields set.

    Args:
        config: path of the file, `configs/vgg16.py`, and after a colon the argument of
            its `get_config`: `configs/vgg16.py:D`.
        settings: `--config.lr=0.03`, `--config.model.variant=E`, as on a command line.

    Raises:
        ConfigError: there is no such file, field or value.
    """
    from absl import flags
    from ml_collections import config_flags

    values, argv = flags.FlagValues(), ["vgg", *settings]
    default = _get_config(config)
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", default, flag_values=values, sys_argv=argv
        )
        rest = values(argv)
    except (AttributeError, KeyError) as error:
        said = error.args[0]
        said = said.args[0] if isinstance(said, KeyError) else said
        text = " ".join(str(said).split())
        raise ConfigError(f"{config} has no such field: {text}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}: options begin with --")
    return holder.value


def _get_config(config: str) -> "ConfigDict":
    """Calls `get_config` of a config file, which may import its neighbours."""
    file, _, argument = config.partition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise ConfigError(
            f"--config={config}: there is no file {file}; the configs come with a "
            "checkout of the repository"
        )
    arguments = [argument] if argument else []
    sys.path.insert(0, str(path.parent.parent))  # for `from configs import default`
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if get_config is None:
            raise ConfigError(f"--config={config}: {file} defines no get_config()")
        try:
            inspect.signature(get_config).bind(*arguments)
        except TypeError as error:
            raise ConfigError(f"--config={config}: get_config: {error}") from error
        return get_config(*arguments)
    finally:
        sys.path.remove(str(path.parent.parent))


def name(config: str) -> str:
    """Returns what the runs of a config are called.

    >>> name("configs/vgg16.py:D")
    'vgg16-D'
    """
    file, _, argument = config.partition(":")
    return "-".join(filter(None, [Path(file).stem, argument]))
