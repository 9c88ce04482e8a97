"""One update and one evaluation, as pure functions of state and batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from vgg_jax.evaluation.metrics import Sums, cross_entropy
from vgg_jax.nn.vgg import VGG
from vgg_jax.training.augment import Augment, views
from vgg_jax.training.sgd import Plateau


class Recipe(NamedTuple):
    """All that decides what a step does, apart from state and batch.

    Attributes:
        model: the network.
        augment: image transforms.
        optimizer: takes the extra argument `learning_rate` (`optimizer.sgd`).
        schedule: learning rate by number of updates, before the plateau's scale.
        plateau: reduces the learning rate between epochs; None where none does.
        monitor: the epoch's value that the plateau looks at.
        label_smoothing: in [0, 1).
        average: of the weights, for evaluation (`average.py`); None: there is none.
        views: of an image in evaluation, whose logits are averaged (`augment.views`).
    """

    model: VGG
    augment: Augment
    optimizer: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule
    plateau: Plateau | None = None
    monitor: str = "val_loss"
    label_smoothing: float = 0.0
    average: Callable | None = None
    views: int = 1


class TrainState(struct.PyTreeNode):
    """Everything that a run carries from step to step; what a checkpoint holds.

    Attributes:
        step: int32, updates made.
        epochs: int32, epochs finished, their validation included.
        seed: uint32, of the run.
        params: float32.
        batch_stats: running mean and variance; empty without batch norm.
        ema: averaged `params`; empty without averaging.
        opt_state: of `Recipe.optimizer`.
        plateau: of `Recipe.plateau`; empty without one.
        sums: training metrics of the epoch so far.
    """

    step: jax.Array
    epochs: jax.Array
    seed: jax.Array
    params: Any
    batch_stats: Any
    ema: Any
    opt_state: Any
    plateau: Any
    sums: Sums

    @property
    def variables(self) -> dict[str, Any]:
        """What evaluation applies the model with."""
        params = self.ema if self.ema else self.params
        return {"params": params, "batch_stats": self.batch_stats}


def init(recipe: Recipe, *, seed: int, image_shape: tuple[int, ...]) -> TrainState:
    """The state before the first update; `image_shape` is that of one image, HWC."""
    images = jnp.zeros((1, *image_shape), jnp.uint8)
    variables = recipe.model.init(
        jax.random.key(seed), recipe.augment.evaluate(images), train=False
    )
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        epochs=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        ema=jax.tree.map(jnp.copy, params) if recipe.average else {},
        opt_state=recipe.optimizer.init(params),
        plateau=recipe.plateau.init() if recipe.plateau else (),
        sums=Sums.zero(),
    )


def learning_rate(recipe: Recipe, step: jax.Array, plateau) -> jax.Array:
    """Learning rate of update number `step` (from 0)."""
    rate = recipe.schedule(step)
    return rate * plateau.scale if recipe.plateau else rate


def train_step(
    recipe: Recipe, state: TrainState, batch: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. Jit it with `recipe` bound and `state` donated.

    Args:
        batch: as `batches.training` yields.

    Returns:
        The next state; `loss` (smoothed, nats), `accuracy` of the batch in [0, 1] and
        the `learning_rate` used.
    """
    run_key = jax.random.key(state.seed)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(run_key, state.step))
    images = recipe.augment.train(
        batch["image"],
        key=augment_key,
        run_key=run_key,
        index=batch["index"],
        epoch=batch["epoch"],
    )

    def loss_of(params):
        logits, updated = recipe.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        losses = cross_entropy(logits, batch["label"], recipe.label_smoothing)
        return losses.mean(), (losses, logits, updated)

    gradient = jax.value_and_grad(loss_of, has_aux=True)
    (loss, (losses, logits, updated)), grads = gradient(state.params)
    rate = learning_rate(recipe, state.step, state.plateau)
    updates, opt_state = recipe.optimizer.update(
        grads, state.opt_state, state.params, learning_rate=rate
    )
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if recipe.average:
        params, ema = recipe.average(params, ema, state.step)
    sums = Sums.of(losses, logits, batch["label"])
    state = state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=updated.get("batch_stats", {}),
        ema=ema,
        opt_state=opt_state,
        sums=state.sums + sums,
    )
    accuracy = sums.top1 / sums.count
    return state, {"loss": loss, "accuracy": accuracy, "learning_rate": rate}


def eval_step(
    recipe: Recipe, variables: dict[str, Any], batch: dict[str, jax.Array]
) -> tuple[Sums, jax.Array]:
    """Sums and logits `[B, K]` of a batch as `batches.evaluation` yields."""
    shown, weights = views(recipe.augment.evaluate(batch["image"]), recipe.views)
    logits = sum(
        weight * recipe.model.apply(variables, images)
        for images, weight in zip(shown, weights, strict=True)
    )
    losses = cross_entropy(logits, batch["label"])
    return Sums.of(losses, logits, batch["label"]), logits


def end_epoch(
    recipe: Recipe, state: TrainState, values: dict[str, float]
) -> TrainState:
    """Counts the epoch, shows the plateau its value and starts new training sums."""
    plateau = state.plateau
    if recipe.plateau:
        plateau = recipe.plateau.update(plateau, values[recipe.monitor])
    return state.replace(epochs=state.epochs + 1, plateau=plateau, sums=Sums.zero())
