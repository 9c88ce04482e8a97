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

One run on many machines: the same command on each, its number at the end; the first
keeps the run, the others need no directory of it:

    python -m vgg_jax train --config=configs/quickstart.py \\
        --coordinator=127.0.0.1:9999 --num_processes=2 --process_id=0

A run lives in --workdir. The same command resumes a run that was stopped; it ends with
report.html.
"""

import argparse
import contextlib
import functools
import gc
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
    several = parser.add_argument_group("several processes that train together")
    several.add_argument(
        "--coordinator",
        default="",
        help="host:port at which the first process can be reached; 'auto' on a TPU "
        "slice, under Slurm and Open MPI, where JAX finds all of these by itself",
    )
    several.add_argument("--num_processes", type=int, help="how many there are")
    several.add_argument("--process_id", type=int, help="which one this is, from 0")


def run(options: argparse.Namespace) -> None:
    """Trains.

    Raises:
        ConfigError, RunError: see `vgg_jax.train` and `processes.joined`.
    """
    if not options.config:
        names = ", ".join(config_file.available())
        raise ConfigError(
            "name a config, --config=configs/quickstart.py to begin with; there are: "
            f"{names or 'none here; they come with a checkout of the repository'}"
        )
    config = config_file.load(options.config, options.settings)
    default = Path("runs") / config_file.name(options.config)
    workdir = Path(options.workdir or default)
    with _joined(options):
        from vgg_jax.training.loop import train  # once the config has proved good

        if not gc.get_freeze_count():
            gc.freeze()  # what is imported stays: not looked at again for garbage
        train(config, workdir, test=not options.no_test)


def _joined(options: argparse.Namespace) -> contextlib.AbstractContextManager:
    place = options.num_processes, options.process_id
    if not options.coordinator:
        if place != (None, None):
            raise ConfigError("--num_processes and --process_id need --coordinator")
        return contextlib.nullcontext()
    from vgg_jax import processes

    say = functools.partial(print, flush=True)
    return processes.joined(options.coordinator, *place, report=say)
