"""Flags of the programs that take a config."""

from collections.abc import Sequence

from absl import flags

from vgg_jax.errors import ConfigError


def parse(argv: Sequence[str], config: flags.FlagHolder) -> None:
    """Parses the flags and loads the config file.

    Raises:
        ConfigError: for every mistake in them; the message is one line.
    """
    try:
        rest = flags.FLAGS(argv)
        if config.value is None:
            raise ConfigError("name a config: --config=configs/quickstart.py")
        config.value.lock()  # where absl reports a file that did not load
    except (flags.Error, OSError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}: options begin with --")
