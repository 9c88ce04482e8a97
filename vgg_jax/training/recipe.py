"""From a config and a data set to what a training step needs."""

from ml_collections import ConfigDict

from vgg_jax.data.datasets import Dataset
from vgg_jax.errors import ConfigError
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import sgd as optimizer
from vgg_jax.training import weight_averaging as average
from vgg_jax.training.augment import Augment
from vgg_jax.training.step import Recipe


def build(config: ConfigDict, dataset: Dataset, steps_per_epoch: int) -> Recipe:
    """The `Recipe` of a resolved config on a data set.

    Raises:
        ConfigError: network and data set do not fit.
    """
    classes = config.model.num_classes or len(dataset.classes)
    if classes < len(dataset.classes):
        raise ConfigError(
            f"model.num_classes={classes}, but {dataset.name} has "
            f"{len(dataset.classes)} classes: use that or more, or 0 for as many"
        )
    schedule = config.schedule
    return Recipe(
        model=VGG(**{**config.model, "num_classes": classes}),
        augment=Augment(**config.augment),
        optimizer=optimizer.sgd(**config.optimizer),
        schedule=optimizer.schedule(
            schedule.name,
            lr=config.lr,
            epochs=config.epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=schedule.warmup_epochs,
            boundaries=schedule.boundaries,
            factor=schedule.factor,
            final_scale=schedule.final_scale,
        ),
        plateau=_plateau(config) if schedule.name == "plateau" else None,
        monitor=schedule.monitor,
        label_smoothing=config.label_smoothing,
        average=_average(config, config.epochs * steps_per_epoch),
        views=config.views,
    )


def _average(config, total_steps):
    if config.ema_decay:
        return average.exponential(config.ema_decay)
    if config.lookahead:
        return average.lookahead(config.lookahead, total_steps)
    return None


def _plateau(config):
    schedule = config.schedule
    return optimizer.Plateau(
        mode="min" if schedule.monitor.endswith("loss") else "max",
        factor=schedule.factor,
        patience=schedule.patience,
        min_delta=schedule.min_delta,
        cooldown=schedule.cooldown,
        min_scale=schedule.min_lr / config.lr,
    )
