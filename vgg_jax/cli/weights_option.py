"""The option `--weights` of the commands that use a network."""

import argparse

from vgg_jax.interop import zoo


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the option; it defaults to a network of the zoo."""
    parser.add_argument(
        "--weights",
        default=zoo.DEFAULT,
        help="what `vgg_jax.load` reads: a name of the zoo "
        f"({', '.join(zoo.cards())}), a file, a workdir; default: {zoo.DEFAULT}",
    )
