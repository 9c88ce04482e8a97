"""Scores the weights of a run again: with other views, or from the other checkpoint."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
from rich.console import Console

from vgg_jax import mesh as meshes
from vgg_jax.data.description import description
from vgg_jax.errors import ConfigError, RunError, choose
from vgg_jax.evaluation.exact import Evaluation, evaluate
from vgg_jax.nn.views import VIEWS
from vgg_jax.runs.checkpoint import Checkpoints
from vgg_jax.runs.checkpoint_record import latest
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import check_data, claim, newest
from vgg_jax.training import init_from, progress, step
from vgg_jax.training.config import Config, build
from vgg_jax.training.recipe import prepared

SPLITS = ("validation", "test")
CHECKPOINTS: Mapping[str, Callable[[Checkpoints], int | None]] = {
    "best": Checkpoints.best,
    "last": Checkpoints.latest,
}


def score(
    workdir: str | Path,
    *,
    split: str = "validation",
    views: Sequence[int] = (),
    checkpoint: str = "",
    data_dir: str = "",
    console: Console | None = None,
) -> dict[int, Evaluation]:
    """Evaluates a run's weights on one of its splits; the run stays as it is.

    Args:
        workdir: directory of the run, finished or stopped.
        split: "validation" or "test", as the run's config defines it.
        views: numbers of views of an image (`nn.views`); empty: the config's.
        checkpoint: "best" or "last"; empty: the one that the run is tested with.
        data_dir: TFDS directory, where that has moved since; empty: the config's.
        console: where progress goes.

    Returns:
        Number of views -> `Evaluation`.

    Raises:
        ConfigError: an unknown name, or the run held no validation split out.
        RunError: `workdir` holds no run or no such checkpoint, or is in use.
    """
    console, workdir = console or Console(), Path(workdir)
    fields = RunRecord(workdir).config
    if data_dir:
        fields["data"]["data_dir"] = data_dir
    config = build(fields)
    views = views or [config.views]
    find = _checked(workdir, config, split, views, checkpoint)
    with claim(workdir, dict(config.fields)):
        start = init_from.Start(facts=newest(workdir).init)
        say = partial(progress.say, console)
        dataset, recipe, _ = prepared(config, say, start.preprocessing)
        augment = recipe.augment
        data = description(dataset, augment.measured, augment.components)
        check_data(workdir, data)
        init = partial(
            step.init,
            recipe,
            seed=config.seed,
            image_shape=dataset.train.image_shape,
        )
        state = _restored(workdir, config, jax.eval_shape(init), find)
    images = getattr(dataset, split)
    variables = step.for_evaluation(
        recipe, state.variables, images, config.eval_batch_size
    )
    evaluations = {}
    with progress.Display(console, epochs=1, steps_per_epoch=1) as display:
        for count in views:
            _, eval_step = step.compiled(recipe._replace(views=count), meshes.over(1))
            evaluation = evaluate(
                eval_step,
                variables,
                images,
                batch_size=config.eval_batch_size,
                parts=recipe.shards,
                report=lambda seen: display.evaluate(split, seen, len(images)),
            )
            assert evaluation is not None  # only a `stop` abandons it
            evaluations[count] = evaluation
    return evaluations


def _checked(
    workdir: Path, config: Config, split: str, views: Sequence[int], checkpoint: str
) -> Callable[[Checkpoints], int | None]:
    """Returns the function that finds the checkpoint, once all names are right."""
    if latest(workdir / "checkpoints") is None:
        raise RunError(f"{workdir} has no checkpoint: train it first")
    choose(SPLITS, split, "split")
    for count in views:
        choose(VIEWS, count, "views")
    if split == "validation" and config.data.validation == "none":
        raise ConfigError(
            f"{workdir} held out no validation split to choose by; split=test reads "
            "the test split again"
        )
    return choose(CHECKPOINTS, checkpoint or config.test_with, "checkpoint")


def _restored(
    workdir: Path,
    config: Config,
    like: step.TrainState,
    find: Callable[[Checkpoints], int | None],
) -> step.TrainState:
    opened = Checkpoints(workdir / "checkpoints", monitor=config.checkpoint.monitor)
    with contextlib.closing(opened) as checkpoints:
        number = find(checkpoints)
        if number is None:
            raise RunError(
                f"{workdir} has no validated checkpoint: use checkpoint=last"
            )
        return checkpoints.restore(number, like)
