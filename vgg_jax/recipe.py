"""From a config and a data set to what a training step needs."""

from ml_collections import ConfigDict

from vgg_jax import batches, optimizer
from vgg_jax.augment import Augment
from vgg_jax.data import Dataset
from vgg_jax.errors import ConfigError
from vgg_jax.model import VGG
from vgg_jax.step import Recipe


def build(config: ConfigDict, dataset: Dataset) -> Recipe:
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
    steps = batches.steps_per_epoch(
        len(dataset.train), config.batch_size, config.remainder
    )
    decay, plateau = config.optimizer, config.schedule
    return Recipe(
        model=VGG(**{**config.model, "num_classes": classes}),
        augment=Augment(**config.augment),
        optimizer=optimizer.sgd(**decay),
        schedule=optimizer.schedule(
            config.schedule.name,
            lr=config.lr,
            epochs=config.epochs,
            steps_per_epoch=steps,
            warmup_epochs=config.schedule.warmup_epochs,
            boundaries=config.schedule.boundaries,
            factor=config.schedule.factor,
            final_scale=config.schedule.final_scale,
        ),
        plateau=optimizer.Plateau(
            mode="min" if plateau.monitor.endswith("loss") else "max",
            factor=plateau.factor,
            patience=plateau.patience,
            min_delta=plateau.min_delta,
            cooldown=plateau.cooldown,
            # A floor of 1 keeps the scale of the other schedules out of the way.
            min_scale=plateau.min_lr / config.lr if plateau.name == "plateau" else 1.0,
        ),
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
    )
