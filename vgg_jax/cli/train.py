"""Trains a network, or resumes its run.

    python -m vgg_jax train --config=configs/quickstart.py

The configs of `configs/`, by name or file (`--config=vgg16:D`):

    quickstart    minutes on a laptop; its images come with the repository
    vgg16         the blog's network and optimiser on CIFAR-10 (vgg16.py:D: the
                  paper's D); vgg11, vgg13, vgg19
    vgg16_bn      with batch norm, by Muon: the strong baseline
    vgg16_plain   without batch norm, by the same recipe
    speedrun      the most accuracy per minute (speedrun.py:90: the short run)
    finetune      a trained network taken to other images (finetune.py:quickstart)
    blog          the blog's program to the letter
    findings      quarter-width networks for the paper's comparisons

Every field of configs/default.py can be set; --help_config explains them:

    python -m vgg_jax train --config=configs/vgg16.py --config.lr=0.03 \\
        --config.model.variant=E --workdir=runs/vgg16_E

A run lives in --workdir. The same command resumes a run that was stopped; it ends with
report.html.
"""

import argparse
from pathlib import Path

from vgg_jax.cli import config_file
from vgg_jax.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    config_file.add_arguments(parser)
    parser.add_argument(
        "--workdir", default="", help="directory of the run; default: runs/<config>"
    )
    parser.add_argument(
        "--no_test",
        action="store_true",
        help="train and validate only; the same command without it tests",
    )


def run(options: argparse.Namespace) -> None:
    """Trains.

    Raises:
        ConfigError, RunError: see `vgg_jax.train`.
    """
    if not options.config:
        names = ", ".join(config_file.available())
        raise ConfigError(
            "name a config, --config=configs/quickstart.py to begin with; there are: "
            f"{names or 'none here; they come with a checkout of the repository'}"
        )
    config = config_file.load(options.config, options.settings)
    from vgg_jax.training.loop import train  # once the config has proved good

    default = Path("runs") / config_file.name(options.config)
    workdir = Path(options.workdir or default)
    train(config, workdir, test=not options.no_test)
