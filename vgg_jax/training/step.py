"""One update and one evaluation, as pure functions of state and batch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from vgg_jax import backend
from vgg_jax import mesh as meshes
from vgg_jax.data.batches import Batch, TrainingBatch
from vgg_jax.data.in_memory import Split
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError
from vgg_jax.evaluation import exact
from vgg_jax.evaluation.metrics import Sums, cross_entropy
from vgg_jax.nn import draws, patterns
from vgg_jax.nn.by_platform import lowered_for
from vgg_jax.nn.vgg import VGG, prepared
from vgg_jax.nn.views import averaged
from vgg_jax.training import placement as placements
from vgg_jax.training import shards, tensor_parallel
from vgg_jax.training.augment import Augment
from vgg_jax.training.schedule import Plateau
from vgg_jax.training.weight_averaging import Average


class Recipe(NamedTuple):
    """Everything that decides what a step does, apart from state and batch.

    Attributes:
        model: the network.
        augment: image transforms.
        optimizer: takes the extra argument `learning_rate` (`sgd.SGD`).
        schedule: learning rate by number of updates, before the plateau's scale.
        frozen: patterns for the parameters that do not train (`patterns.split`).
        plateau: reduces the learning rate between epochs; None where none does.
        monitor: the epoch's value that the plateau looks at.
        label_smoothing: in [0, 1).
        average: an average of the weights, which evaluation uses
            (`weight_averaging`); None: there is none.
        views: number of views of an image in evaluation, whose logits are averaged
            (`nn.views`).
        shards: parts of a batch, training and evaluation alike, that are computed each
            by itself, so that the number of devices makes no difference (`shards`).
            Batch norm's statistics are those of a shard.
    """

    model: VGG
    augment: Augment
    optimizer: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule
    frozen: tuple[str, ...] = ()
    plateau: Plateau | None = None
    monitor: str = "val_loss"
    label_smoothing: float = 0.0
    average: Average | None = None
    views: int = 1
    shards: int = 1


class TrainState(struct.PyTreeNode):
    """Everything that a run carries from step to step; what a checkpoint holds.

    Attributes:
        step: int32, number of updates made.
        epochs: int32, number of epochs finished, their validation included.
        seed: uint32, seed of the run.
        params: float32, all parameters, frozen ones included.
        batch_stats: running mean and variance; empty without batch norm.
        ema: averages of the parameters that train and, with `Average.statistics`, of
            `batch_stats` beside them; empty without averaging.
        opt_state: state of `Recipe.optimizer`, for the parameters that train.
        plateau: state of `Recipe.plateau`; empty without one.
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
        """The variables that evaluation applies the model with."""
        return {
            "params": patterns.replace(self.params, self.ema),
            "batch_stats": patterns.replace(self.batch_stats, self.ema),
        }


def init(recipe: Recipe, *, seed: int, image_shape: tuple[int, ...]) -> TrainState:
    """Returns the state before the first update.

    Args:
        recipe: what the steps do.
        seed: decides the initial weights, the augmentation and dropout.
        image_shape: `(H, W, C)` of an image of the data set.

    Raises:
        ConfigError: a pattern of `recipe.frozen` matches no parameter, or all are
            frozen.
    """
    images = jnp.zeros((1, *image_shape), jnp.uint8)
    model = recipe.model.clone(conv="lax")  # no activation is wanted: traced sooner
    seen = recipe.augment.evaluate(images)
    variables = draws.init(model, jax.random.key(seed), seen, train=False)
    params = variables["params"]
    trained, _ = patterns.split(params, recipe.frozen, "model.frozen")
    if not trained:
        raise ConfigError(
            f"model.frozen={recipe.frozen} leaves nothing to train: leave fc8 out, say"
        )
    batch_stats = variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        epochs=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        batch_stats=batch_stats,
        ema=_first_average(recipe, trained, batch_stats),
        opt_state=recipe.optimizer.init(trained),
        plateau=recipe.plateau.init() if recipe.plateau else (),
        sums=Sums.zero(),
    )


def for_evaluation(
    recipe: Recipe, variables: Any, split: Split | Streamed, batch_size: int
) -> Any:
    """Returns variables as evaluation on one device is fastest with (`vgg.prepared`).

    Args:
        recipe: what the steps do.
        variables: of the network, float32.
        split: the images that are evaluated.
        batch_size: images per batch, as `exact.evaluate` takes them.
    """
    count = exact.padded(batch_size, len(split), recipe.shards) // recipe.shards
    part = jax.ShapeDtypeStruct((count, *split.image_shape), jnp.uint8)
    seen = jax.eval_shape(recipe.augment.evaluate, part)
    return prepared(recipe.model, variables, seen.shape[:3])


def _averaged(recipe: Recipe, trained: Any, batch_stats: Any) -> dict[str, Any]:
    """Returns what `recipe.average` is an average of."""
    if recipe.average is None:
        return {}
    if not recipe.average.statistics:
        return patterns.merge(trained)
    frozen = recipe.model.is_frozen_norm
    moving = {name: stats for name, stats in batch_stats.items() if not frozen(name)}
    return patterns.merge(trained, moving)


def _first_average(recipe: Recipe, trained: Any, batch_stats: Any) -> dict[str, Any]:
    return jax.tree.map(jnp.copy, _averaged(recipe, trained, batch_stats))


def with_weights(
    recipe: Recipe, state: TrainState, params: Any, batch_stats: Any
) -> TrainState:
    """Returns the state before the first update, with other weights."""
    trained, _ = patterns.split(params, recipe.frozen)
    return state.replace(
        params=params,
        batch_stats=batch_stats,
        ema=_first_average(recipe, trained, batch_stats),
    )


def learning_rate(recipe: Recipe, step: jax.Array, plateau: Any) -> jax.Array:
    """Returns the learning rate of update number `step` (from 0), float32 scalar."""
    with jax.numpy_dtype_promotion("standard"):  # Optax divides the count
        rate = jnp.asarray(recipe.schedule(step))
    return rate * plateau.scale if recipe.plateau else rate


def network_input(
    recipe: Recipe, batch: TrainingBatch, *, seed: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns what the network sees in an update, and the update's key for dropout.

    Args:
        recipe: what the step does.
        batch: as `batches.training` yields them.
        seed: of the run, uint32 scalar.
        step: number of the update, from 0, int32 scalar.

    Returns:
        Augmented images, float32 `[B, size, size, C]`, and a key.
    """
    run_key = jax.random.key(seed)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(run_key, step))
    images = recipe.augment.train(
        batch.images,
        key=augment_key,
        run_key=run_key,
        index=batch.index,
        epoch=batch.epoch,
    )
    return images, dropout_key


class _Pass(NamedTuple):
    """What comes out of a forward and backward pass over some images.

    Attributes:
        gradient: of `loss`, by the parameters that train.
        loss: mean over the images, smoothed, in nats.
        batch_stats: new running averages.
        sums: training metrics of the images.
    """

    gradient: Any
    loss: jax.Array
    batch_stats: Any
    sums: Sums


def _passed(
    recipe: Recipe,
    weights: tuple[Any, Any, Any],
    images: jax.Array,
    labels: jax.Array,
    dropout_key: jax.Array,
) -> _Pass:
    """Makes one pass with `weights`: those that train, the frozen ones, statistics."""
    trained, fixed, batch_stats = weights

    def loss_of(trained):
        logits, updated = recipe.model.apply(
            {"params": patterns.merge(trained, fixed), "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        losses = cross_entropy(logits, labels, recipe.label_smoothing)
        return losses.mean(), (losses, logits, updated)

    gradient = jax.value_and_grad(loss_of, has_aux=True)
    (loss, (losses, logits, updated)), grads = gradient(trained)
    sums = Sums.of(losses, logits, labels)
    return _Pass(grads, loss, updated.get("batch_stats", {}), sums)


def _passed_in_shards(
    recipe: Recipe,
    mesh: Mesh,
    weights: tuple[Any, Any, Any],
    images: jax.Array,
    labels: jax.Array,
    dropout_key: jax.Array,
) -> _Pass:
    """Makes a pass per shard, and returns their mean."""
    count = recipe.shards
    parts = shards.cut((images, labels), count)
    keys = jax.random.split(dropout_key, count)

    def one(weights, part):
        (images, labels), key = part
        return _passed(recipe, weights, images, labels, key), ()

    added, _ = shards.compute(one, weights, (parts, keys), mesh=mesh)
    means = jax.tree.map(lambda x: x / count, added)
    return means._replace(sums=added.sums)


def train_step(
    recipe: Recipe, state: TrainState, batch: TrainingBatch, *, mesh: Mesh | None = None
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Makes one update. Jit it with `recipe` bound and `state` donated.

    Args:
        recipe: what the step does.
        state: donated where jitted so.
        batch: as `batches.training` yields them.
        mesh: of the devices that share a batch and the work; None: the first alone.

    Returns:
        The next state; and `loss` (smoothed, nats), `accuracy` of the batch in [0, 1]
        and the `learning_rate` used, float32 scalars.
    """
    mesh = mesh or meshes.over(1)
    images, dropout_key = network_input(recipe, batch, seed=state.seed, step=state.step)
    trained, fixed = patterns.split(state.params, recipe.frozen)
    make_pass = partial(_passed, recipe)
    if recipe.shards > 1:
        make_pass = partial(_passed_in_shards, recipe, mesh)
    weights = trained, fixed, state.batch_stats
    made = make_pass(weights, images, batch.labels, dropout_key)
    rate = learning_rate(recipe, state.step, state.plateau)
    update = partial(_updated, recipe, mesh)
    if recipe.shards > 1:  # fused with the sum of the shards it rounds otherwise
        update = shards.alike(update, mesh)
    state = update(state, made, rate)
    accuracy = made.sums.top1 / made.sums.count
    return state, {"loss": made.loss, "accuracy": accuracy, "learning_rate": rate}


def _updated(
    recipe: Recipe, mesh: Mesh, state: TrainState, made: _Pass, rate: jax.Array
) -> TrainState:
    """Returns the next state, after a pass."""
    trained, fixed = patterns.split(state.params, recipe.frozen)
    alone = mesh.size == 1 == recipe.shards  # with nobody to be alike to
    updates, opt_state = recipe.optimizer.update(
        made.gradient,
        state.opt_state,
        trained,
        learning_rate=rate,
        mesh=None if alone else mesh,
    )
    trained: Any = optax.apply_updates(trained, updates)
    ema = state.ema
    if recipe.average:
        averaged = _averaged(recipe, trained, made.batch_stats)
        averaged, ema = recipe.average.update(averaged, ema, state.step)
        trained = patterns.replace(trained, averaged)
    return state.replace(
        step=state.step + 1,
        params=patterns.merge(trained, fixed),
        batch_stats=made.batch_stats,
        ema=ema,
        opt_state=opt_state,
        sums=state.sums + made.sums,
    )


def eval_step(
    recipe: Recipe,
    variables: dict[str, Any],
    batch: Batch,
    *,
    mesh: Mesh | None = None,
) -> tuple[Sums, jax.Array]:
    """Returns the sums and logits, float32 `[B, K]`, of a batch.

    Args:
        recipe: how to see the images.
        variables: parameters and statistics of the model.
        batch: as `batches.evaluation` yields them.
        mesh: as for `train_step`.
    """
    if recipe.shards == 1:
        return _scored(recipe, variables, batch)
    parts = shards.cut(batch, recipe.shards)
    one = partial(_scored, recipe)
    mesh = mesh or meshes.over(1)
    sums, logits = shards.compute(one, variables, parts, mesh=mesh)
    return sums, shards.joined(logits)


def _scored(recipe, variables, batch):
    apply = partial(recipe.model.apply, variables)
    logits = averaged(apply, recipe.augment.evaluate(batch.images), recipe.views)
    losses = cross_entropy(logits, batch.labels)
    return Sums.of(losses, logits, batch.labels), logits


def compiled(
    recipe: Recipe, mesh: Mesh | None = None, placement: str = "replicated"
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the training and the evaluation step, jitted, as every program runs them.

    Args:
        recipe: what the steps do.
        mesh: the devices that share each batch, for which the programs are; None: the
            first device alone, but they can be lowered for other platforms.
        placement: where the training step's state is, and stays (`placement.placed`).

    Returns:
        `train_step(state, batch)`, which reuses the memory of its state for the next
        one, and `eval_step(variables, batch)`.
    """
    for_it = lowered_for(mesh.devices.flat[0].platform if mesh else "")
    made_step, scored_step = for_it(train_step), for_it(eval_step)
    mesh = mesh or meshes.over(1)
    platform = mesh.devices.flat[0].platform
    # Shards are computed by our kernels on several devices too, and to the same bits.
    on_one = mesh.size == 1 or recipe.shards > 1
    by_kernels = on_one and recipe.model.is_by_kernels()
    dtype = recipe.model.dtype
    options = backend.compiler_options(dtype, platform, by_kernels=by_kernels)
    jit = partial(jax.jit, compiler_options=options)
    if mesh.size == 1:
        train = jit(partial(made_step, recipe, mesh=mesh), donate_argnums=0)
        return train, jit(partial(scored_step, recipe, mesh=mesh))
    whole, spread = meshes.whole(mesh), meshes.spread(mesh)

    def stays(state: TrainState, batch: TrainingBatch) -> tuple[TrainState, dict]:
        with tensor_parallel.activations_over(mesh):
            state, metrics = made_step(recipe, state, batch, mesh=mesh)
        where = placements.shardings(state, mesh, placement)
        return jax.lax.with_sharding_constraint(state, where), metrics

    def scores(variables: dict[str, Any], batch: Batch) -> tuple[Sums, jax.Array]:
        with tensor_parallel.activations_over(mesh):
            return scored_step(recipe, variables, batch, mesh=mesh)

    weights = whole if mesh.shape[meshes.MODEL] == 1 else None  # as the arrays come
    train = jit(
        stays,
        donate_argnums=0,
        in_shardings=(
            weights if placement == "replicated" else None,
            TrainingBatch(spread, spread, spread, whole),
        ),
    )
    evaluate = jit(
        scores, in_shardings=(weights, spread), out_shardings=(whole, spread)
    )
    return train, evaluate


def end_epoch(
    recipe: Recipe, state: TrainState, values: dict[str, float]
) -> TrainState:
    """Counts the epoch, shows the plateau its value and starts new training sums."""
    epochs, plateau = jax.device_get((state.epochs, state.plateau))
    if recipe.plateau:
        plateau = recipe.plateau.update(plateau, values[recipe.monitor])
    return state.replace(
        epochs=jnp.asarray(epochs + 1), plateau=plateau, sums=Sums.zero()
    )
