"""The state of a run before its first update."""

from functools import partial
from typing import Any

import jax
import numpy as np

from vgg_jax import backend
from vgg_jax.data.in_memory import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError
from vgg_jax.nn import whitening
from vgg_jax.training import step
from vgg_jax.training.config import Config

_WHITENED = 250  # images normalised at once for the whitening layer


def maker(config: Config, recipe: step.Recipe, train: Split | Streamed) -> Any:
    """Returns `step.init`, jitted, of no arguments.

    Args:
        config: the run's.
        recipe: what its steps do.
        train: the images that the steps are made on.
    """
    init = partial(step.init, recipe, seed=config.seed, image_shape=train.image_shape)
    return jax.jit(init, compiler_options=backend.options_to_run_once())


def made(
    config: Config, recipe: step.Recipe, make: Any, train: Split | Streamed
) -> step.TrainState:
    """Returns the state before the first update, whitened if asked for.

    Args:
        config: the run's.
        recipe: what its steps do.
        make: of `maker`.
        train: the images whose patches whiten the first layer.

    Raises:
        ConfigError: the first layer has too few or too many channels to be whitened.
    """
    state = make()
    if not config.model.whiten:
        return state
    first = np.arange(min(whitening.IMAGES, len(train)))
    chunks = [first[i : i + _WHITENED] for i in range(0, len(first), _WHITENED)]
    evaluate = jax.jit(recipe.augment.evaluate)
    shown = (evaluate(images) for images, _ in train.batches(chunks))
    try:
        return state.replace(params=whitening.set_first(state.params, shown))
    except ConfigError as error:
        raise ConfigError(f"model.{error}") from error
