"""Scores the weights of a run again: with other views, or the other checkpoint.

    python -m vgg_jax.training.score --workdir=runs/vgg16_bn --views=1,2,6
    python -m vgg_jax.training.score --workdir=runs/vgg16_bn --split=test

Looks at the validation split unless told otherwise, since choices are made there.
The run stays as it is.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict
from rich.console import Console

from vgg_jax import backend
from vgg_jax.errors import ConfigError, RunError, choose, guarded
from vgg_jax.evaluation.exact import Evaluation, evaluate
from vgg_jax.runs import workdir as workdir_lib
from vgg_jax.runs.checkpoint import Checkpoints, latest
from vgg_jax.runs.run_record import Record
from vgg_jax.training import augment, progress, step
from vgg_jax.training.session import prepare

SPLITS = ("validation", "test")
CHECKPOINTS = {"best": Checkpoints.best, "last": Checkpoints.latest}


def score(
    workdir: Path,
    *,
    split: str = "validation",
    views: Sequence[int] = (),
    checkpoint: str = "",
    data_dir: str = "",
    console: Console | None = None,
) -> dict[int, Evaluation]:
    """Evaluates a run's weights on one of its splits.

    Args:
        workdir: of the run, finished or stopped.
        split: "validation" or "test", as the run's config defines it.
        views: numbers of views of an image (`augment.views`); empty: the config's.
        checkpoint: "best" or "last"; empty: the one that the run is tested with.
        data_dir: TFDS directory, where that has moved since; empty: the config's.
        console: where progress goes.

    Returns:
        Number of views -> `Evaluation`.

    Raises:
        ConfigError: an unknown name, or the run held no validation split out.
        RunError: `workdir` holds no run or no such checkpoint, or is in use.
    """
    console = console or Console()
    config = ConfigDict(Record(workdir).config)
    views = views or [config.views]
    which = _checked(workdir, config, split, views, checkpoint)
    if data_dir:
        config.data.data_dir = data_dir
    with workdir_lib.claim(workdir, config.to_dict()):
        dataset, made, _ = prepare(config, report=partial(progress.say, console))
        state = _restored(workdir, config, dataset, made, which)
    images = getattr(dataset, split)
    with progress.Display(console, epochs=1, steps_per_epoch=1) as display:
        return {
            count: evaluate(
                jax.jit(partial(step.eval_step, made._replace(views=count))),
                state.variables,
                images,
                batch_size=config.eval_batch_size,
                report=lambda done: display.evaluate(split, done, len(images)),
            )
            for count in views
        }


def _checked(workdir, config, split, views, checkpoint):
    """The function of `CHECKPOINTS` that is asked for, all names being right."""
    choose(SPLITS, split, "--split")
    for count in views:
        choose(augment.VIEWS, count, "--views")
    if split == "validation" and config.data.validation == "none":
        raise ConfigError(
            f"{workdir} held out no validation split to choose by; --split=test reads "
            "the test split again"
        )
    return choose(CHECKPOINTS, checkpoint or config.test_with, "--checkpoint")


def _restored(workdir, config, dataset, made, which):
    directory = workdir / "checkpoints"
    if latest(directory) is None:
        raise RunError(f"{workdir} has no checkpoint: train it first")
    shape = dataset.train.image_shape
    init = partial(step.init, made, seed=config.seed, image_shape=shape)
    opened = Checkpoints(directory, monitor=config.checkpoint.monitor)
    with contextlib.closing(opened) as checkpoints:
        number = which(checkpoints)
        if number is None:
            raise RunError(f"{workdir} has no validated checkpoint: --checkpoint=last")
        return checkpoints.restore(number, jax.eval_shape(init))


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m vgg_jax.training.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--split", default="validation", help="validation or test")
    parser.add_argument("--views", default="", help="1,2,6; default: the config's")
    parser.add_argument("--checkpoint", default="", help="best or last")
    parser.add_argument("--data_dir", default="", help="TFDS directory, if it moved")
    options = parser.parse_args(arguments)
    known = {str(count): count for count in augment.VIEWS}
    asked = filter(None, options.views.split(","))
    views = [choose(known, count, "--views") for count in asked]
    backend.configure()
    found = score(
        options.workdir,
        split=options.split,
        views=views,
        checkpoint=options.checkpoint,
        data_dir=options.data_dir,
    )
    print(f"{options.split} of {options.workdir}")
    print(f"{'views':>5}  {'images':>7}  {'top-1 %':>8}  {'top-5 %':>8}  {'loss':>7}")
    for count, result in found.items():
        print(
            f"{count:>5}  {result.count:>7,}  {100 * result.accuracy:>8.2f}  "
            f"{100 * result.top5:>8.2f}  {result.loss:>7.4f}"
        )


if __name__ == "__main__":
    guarded(main, sys.argv[1:])
