"""From a config and a data set to what a training step needs."""

from vgg_jax.data.datasets import Dataset
from vgg_jax.errors import ConfigError
from vgg_jax.training import weight_averaging
from vgg_jax.training.config import Config
from vgg_jax.training.step import Recipe


def build(config: Config, dataset: Dataset, steps_per_epoch: int) -> Recipe:
    """Returns the `Recipe` of a config on a data set.

    Raises:
        ConfigError: network and data set do not fit.
    """
    classes = config.num_classes or len(dataset.classes)
    if classes < len(dataset.classes):
        raise ConfigError(
            f"model.num_classes={classes}, but {dataset.name} has "
            f"{len(dataset.classes)} classes: use that or more, or 0 for as many"
        )
    return Recipe(
        model=config.model.clone(num_classes=classes),
        augment=config.augment,
        optimizer=config.optimizer.transformation(),
        schedule=config.schedule.rate(
            lr=config.lr, epochs=config.epochs, steps_per_epoch=steps_per_epoch
        ),
        frozen=("conv1_1/kernel",) if config.model.whiten else (),
        plateau=config.schedule.plateau(config.lr),
        monitor=config.schedule.monitor,
        label_smoothing=config.label_smoothing,
        average=_average(config, config.epochs * steps_per_epoch),
        views=config.views,
    )


def _average(config: Config, total_steps: int) -> weight_averaging.Average | None:
    if config.ema_decay:
        return weight_averaging.exponential(config.ema_decay)
    if config.lookahead:
        return weight_averaging.lookahead(config.lookahead, total_steps)
    return None
