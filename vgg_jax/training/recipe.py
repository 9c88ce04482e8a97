"""From a config and a data set to what a training step needs."""

import dataclasses
from collections.abc import Callable

from vgg_jax.data import batches, colour_statistics, datasets
from vgg_jax.data.datasets import Dataset
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError
from vgg_jax.nn import architecture
from vgg_jax.nn.preprocessing import INIT, OWN, Preprocessing
from vgg_jax.training import weight_averaging
from vgg_jax.training.augment import Augment
from vgg_jax.training.colour_shift import ColourShift
from vgg_jax.training.config import Config
from vgg_jax.training.step import Recipe

_MOST_STEPS = 2**31 - 1  # of an int32, which counts them


def prepared(
    config: Config,
    report: Callable[[str], None],
    adopted: Preprocessing | None = None,
) -> tuple[Dataset, Recipe, int]:
    """Returns the data set, the recipe and the number of steps per epoch.

    Args:
        config: the run's.
        report: receives a line when something takes long.
        adopted: of the network that the run starts from, if it does.

    Raises:
        ConfigError, RunError: see `datasets.load` and `build`.
    """
    source = dataclasses.asdict(config.data)
    shown = {"size": config.augment.resize, "scales": config.augment.scales}
    dataset = datasets.load(**source, **shown, report=report)
    steps = batches.steps_per_epoch(
        len(dataset.train), config.batch_size, config.remainder
    )
    return dataset, build(config, dataset, steps, adopted), steps


def build(
    config: Config,
    dataset: Dataset,
    steps_per_epoch: int,
    adopted: Preprocessing | None = None,
) -> Recipe:
    """Returns the `Recipe` of a config on a data set.

    Args:
        config: the run's.
        dataset: what it trains on.
        steps_per_epoch: training steps.
        adopted: of the network that the run starts from, if it does.

    Raises:
        ConfigError: network and data set do not fit.
    """
    classes = config.num_classes or len(dataset.classes)
    if classes < len(dataset.classes):
        raise ConfigError(
            f"model.num_classes={classes}, but {dataset.name} has "
            f"{len(dataset.classes)} classes: use that or more, or 0 for as many"
        )
    _check_sizes(config.augment, dataset, config.model.variant)
    if config.epochs * steps_per_epoch > _MOST_STEPS:
        raise ConfigError(
            f"epochs={config.epochs} of {steps_per_epoch:,} steps are more than the "
            f"{_MOST_STEPS:,} that are counted: use at most "
            f"{_MOST_STEPS // steps_per_epoch:,}"
        )
    return Recipe(
        model=config.model.clone(num_classes=classes),
        augment=_augment(config, dataset, adopted),
        optimizer=config.optimizer.transformation(),
        schedule=config.schedule.rate(
            lr=config.lr, epochs=config.epochs, steps_per_epoch=steps_per_epoch
        ),
        frozen=(*config.model.frozen, *["conv1_1/kernel"] * config.model.whiten),
        plateau=config.schedule.plateau(config.lr),
        monitor=config.schedule.monitor,
        label_smoothing=config.label_smoothing,
        average=_average(config, config.epochs * steps_per_epoch),
        views=config.views,
        shards=config.shards,
    )


def _check_sizes(augment: Augment, dataset: Dataset, variant: str) -> None:
    """Checks the pixels of images: for the pools, and for what augmentation cuts."""
    side = min(dataset.train.image_shape[:2])
    least = architecture.least_size(variant)
    if (augment.resize or side) < least:
        raise ConfigError(
            f"the images of {dataset.name} have {side} pixels, too few for "
            f"configuration {variant}: set augment.resize={least} or more"
        )
    if augment.crop >= side:
        raise ConfigError(
            f"augment.crop={augment.crop} must be below {side}, the pixels of "
            f"{dataset.name}: a crop could miss the whole image"
        )
    seen = augment.resize or side
    if augment.cutout >= seen:
        raise ConfigError(
            f"augment.cutout={augment.cutout} must be below {seen}, the pixels that "
            "the network sees"
        )


def _augment(
    config: Config, dataset: Dataset, adopted: Preprocessing | None
) -> Augment:
    """Returns the config's, with the numbers that stand in the data set or in `init`.

    What is decoded from disk comes cut out of scaled pictures already.
    """
    augment = config.augment
    if isinstance(dataset.train, Streamed):
        augment = dataclasses.replace(augment, scales=())
    if augment.normalize == INIT:
        if adopted is None:
            raise ConfigError(
                f"augment.normalize={INIT!r} stands for what the network of init.path "
                "expects, and none was read"
            )
        augment = dataclasses.replace(augment, normalize=adopted)
    if augment.normalize != OWN and not augment.colour:
        return augment
    moments = colour_statistics.of_training(dataset)
    if augment.normalize == OWN:
        own = Preprocessing(*colour_statistics.statistics(moments))
        augment = dataclasses.replace(augment, normalize=own)
    if isinstance(augment.colour, float | int) and augment.colour:
        components = colour_statistics.components(moments)
        shift = ColourShift(float(augment.colour), components)
        augment = dataclasses.replace(augment, colour=shift)
    return augment


def _average(config: Config, total_steps: int) -> weight_averaging.Average | None:
    if config.ema_decay:
        return weight_averaging.exponential(config.ema_decay)
    if config.lookahead:
        return weight_averaging.lookahead(config.lookahead, total_steps)
    return None
