"""Scores the weights of a run again: with other views, or from the other checkpoint.

Its splits are those of the run's config; `vgg evaluate` takes any weights and images.

    python -m vgg_jax score --workdir=runs/quickstart --views=1,2,6
    python -m vgg_jax score --workdir=runs/quickstart --split=test

Looks at the validation split unless told otherwise, since choices are made there.
The run stays as it is.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from vgg_jax.errors import choose
from vgg_jax.evaluation.exact import Evaluation
from vgg_jax.nn.views import VIEWS
from vgg_jax.training.score import CHECKPOINTS, SPLITS, score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--workdir", type=Path, required=True, help="directory of the run"
    )
    parser.add_argument("--split", default="validation", choices=SPLITS)
    parser.add_argument("--views", default="", help="1,2,6; default: the config's")
    parser.add_argument(
        "--checkpoint",
        default="",
        choices=[*CHECKPOINTS, ""],
        help="default: the one that the run is tested with",
    )
    parser.add_argument(
        "--data_dir", default="", help="TFDS directory, if it has moved"
    )


def run(options: argparse.Namespace) -> None:
    """Prints one row per number of views.

    Raises:
        ConfigError, RunError: see `score`.
    """
    known = {str(count): count for count in VIEWS}
    asked = filter(None, options.views.split(","))
    evaluations = score(
        options.workdir,
        split=options.split,
        views=[choose(known, count, "--views") for count in asked],
        checkpoint=options.checkpoint,
        data_dir=options.data_dir,
    )
    print(f"{options.split} of {options.workdir}")
    show(evaluations)


def show(evaluations: Mapping[int, Evaluation]) -> None:
    """Prints a row per number of views."""
    print(f"{'views':>5}  {'images':>7}  {'top-1 %':>8}  {'top-5 %':>8}  {'loss':>7}")
    for count, result in evaluations.items():
        print(
            f"{count:>5}  {result.count:>7,}  {100 * result.accuracy:>8.2f}  "
            f"{100 * result.top5:>8.2f}  {result.loss:>7.4f}"
        )
