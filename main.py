"""Trains a VGG: `python main.py --config=configs/quickstart.py`.

configs/  quickstart   minutes on a laptop; its images come with the repository
          vgg16        the blog's network and optimiser on CIFAR-10 (vgg16.py:D: the
                       paper's D); vgg11, vgg13, vgg19
          vgg16_bn     with batch norm, the usual strong baseline
          speedrun     the most accuracy a minute (speedrun.py:90: the short run)
          blog         the blog's program to the letter
          findings     quarter-width networks for the paper's comparisons

Every field of configs/default.py, where each is explained, can be set:
  --config.lr=0.03 --config.model.variant=E --config.data.train='train[:90%]'

A run lives in --workdir. The same command resumes a run that was stopped; it ends with
report.html. See also, each with --help:
  python -m vgg_jax.cli.summary   a network's layers and costs, before it runs
  python -m vgg_jax.runs.report    the page of a run, or a comparison of several
  python -m vgg_jax.training.score     a run's weights again, with other views of an image
  python -m vgg_jax.runs.sweep     grids of settings and seeds
  python -m vgg_jax.data.image_folder    a data set from your own folders of pictures
"""

import logging as standard_logging
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from vgg_jax import backend
from vgg_jax.cli import command as command_line
from vgg_jax.errors import guarded

_CONFIG = config_flags.DEFINE_config_file("config", help_string="a file of configs/")
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "directory of the run; empty: runs/<name of the config>"
)


def main(argv):
    command_line.parse(argv, _CONFIG)
    backend.configure()
    from vgg_jax.training import loop as train

    # "configs/vgg16.py:D" -> "vgg16-D"
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, argument = name.partition(":")
    name = "-".join(filter(None, [Path(file).stem, argument]))
    train.train(_CONFIG.value, Path(_WORKDIR.value or Path("runs") / name))


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)
    # Orbax leaves tasks behind when a disk is full; the one line comes from us.
    standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    app.define_help_flags()
    guarded(main, sys.argv)
