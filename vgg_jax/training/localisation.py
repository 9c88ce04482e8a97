"""A classifier made into a network that says where things are: the paper's appendix A.

Its last layer is replaced by a new one for a bounding box, shared by all classes
(single-class regression, SCR) or one per class (per-class regression, PCR), and it is
trained with a Euclidean loss on random crops of scaled pictures and mirror images.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vgg_jax import backend
from vgg_jax.data import batches
from vgg_jax.data.boxes import check_boxes, in_window, mirrored
from vgg_jax.data.composites import Boxed
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.inference.localiser import ANY, of_class, output_names
from vgg_jax.interop.load import with_head
from vgg_jax.interop.network import Network, check_network, check_unprepared
from vgg_jax.nn import patterns
from vgg_jax.nn.preprocessing import Preprocessing, normalize
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import scaled_crop
from vgg_jax.training.box_regression import BoxRegression
from vgg_jax.training.sgd import SGD

_DENSE = "fc"  # how the names of dense layers begin


class _Task(NamedTuple):
    """What an update does, apart from its arguments: the same task compiles once.

    Attributes:
        model: of the localiser; its `frozen` is what does not train.
        preprocessing: what the model expects of its images.
        size: height and width of the crops in pixels.
        scale: smaller side of the scaled pictures in pixels.
        optimizer: SGD.
    """

    model: VGG
    preprocessing: Preprocessing
    size: int
    scale: int
    optimizer: SGD


class _State(NamedTuple):
    """What is carried from update to update."""

    params: Any
    batch_stats: Any
    opt_state: Any


def euclidean_loss(predicted: jax.Array, true: jax.Array) -> jax.Array:
    """Returns half the squared distance of each box from the true one, float32 `[B]`.

    Args:
        predicted: float32 `[B, 4]` (`data.boxes`).
        true: float32 `[B, 4]`, or `[1, 4]`.

    >>> boxes = jnp.array([[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 2.0]])
    >>> euclidean_loss(boxes, boxes[:1]).tolist()
    [0.0, 0.5]
    """
    return 0.5 * jnp.square(predicted - true).sum(-1)


def fine_tune(
    classifier: Network,
    pictures: Boxed,
    regression: BoxRegression,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Network:
    """Returns a localiser that begins as a classifier; `interop.save` can keep it.

    The same arguments give the same weights. A batch norm of which nothing trains
    normalises by its running averages.

    Args:
        classifier: trained, on images of `classifier.size`, which is the crop's.
        pictures: with labels of its classes, and a box each.
        regression: what is trained, and how.
        report: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The localiser; its `class_names` say what the outputs are
        (`localiser.output_names`).

    Raises:
        ConfigError: the boxes are not in shares of the picture, the labels are no
            classes of the network, or the network, the pictures and `regression` do not
            fit one another.
        RunError: the loss is not finite.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> classifier = random(VGG("conv3-8 |", 10, hidden=(8,)), "unit", size=16)
    >>> box = np.float32([[0.5, 0.5, 0.25, 0.25]] * 4)
    >>> pictures = Boxed(np.zeros((4, 20, 20, 3), np.uint8), np.arange(4), box)
    >>> how = BoxRegression(scale=20, epochs=1, batch_size=2, per_class=False)
    >>> fine_tune(classifier, pictures, how).class_names
    ('any: centre x', 'any: centre y', 'any: width', 'any: height')
    """
    _check(classifier, pictures, regression)
    network = _regressor(classifier, regression)
    task = _task(network, regression)
    update, state = _compiled(task), _begun(network, task)
    key = jax.random.key(regression.seed)
    rates = _rates(regression, len(pictures.labels))
    for epoch in range(regression.epochs):
        order = batches.order(regression.seed, epoch, len(pictures.labels))
        losses = []
        for i, rate in enumerate(rates[epoch]):
            index = order[i * regression.batch_size :][: regression.batch_size]
            step_key = jax.random.fold_in(key, epoch * len(rates[epoch]) + i)
            columns = (column[index] for column in pictures)
            state, loss = update(state, step_key, rate, *columns)
            losses.append(loss)
        _tell(report, epoch + 1, losses)
    variables = {**network.variables, "params": state.params}
    variables |= {"batch_stats": state.batch_stats} if state.batch_stats else {}
    source = f"boxes from {classifier.source}" if classifier.source else ""
    return network.with_variables(variables, source)


def _check(classifier: Network, pictures: Boxed, regression: BoxRegression) -> None:
    check_network(classifier)
    check_unprepared(classifier)
    check_boxes(pictures.boxes, len(pictures.images))
    size, classes = classifier.size, classifier.model.num_classes
    if not 0 < size <= regression.scale:
        raise ConfigError(
            f"scale={regression.scale} must be at least the {size} pixels that the "
            "network was trained on (0: it does not say; network.replace(size=...))"
        )
    labels = np.asarray(pictures.labels)
    if len(labels) != len(pictures.images) or not 0 <= labels.min() <= labels.max():
        raise ConfigError(
            f"labels of shape {list(labels.shape)} for {len(pictures.images)} "
            "pictures: each has one, at least 0"
        )
    if labels.max() >= classes:
        raise ConfigError(
            f"label {labels.max()} is no class of the network, which has {classes}"
        )


def _regressor(classifier: Network, regression: BoxRegression) -> Network:
    """Returns the network with a new last layer, for boxes."""
    known = classifier.class_names or map(str, range(classifier.model.num_classes))
    names = output_names([*known] if regression.per_class else [ANY])
    network = with_head(classifier, len(names), regression.seed)
    return network.replace(class_names=names)


def _task(network: Network, regression: BoxRegression) -> _Task:
    optimizer, frozen = regression.optimizer, ()
    if regression.layers == "dense":
        layers = network.variables["params"]
        frozen = tuple(layer for layer in layers if not layer.startswith(_DENSE))
    elif network.model.whiten:
        frozen = ("conv1_1/kernel",)
    return _Task(
        network.model.clone(frozen=frozen),
        network.preprocessing,
        network.size,
        regression.scale,
        dataclasses.replace(optimizer, layer_rates=tuple(optimizer.layer_rates)),
    )


def _rates(regression: BoxRegression, pictures: int) -> np.ndarray:
    """Returns the learning rate of each update, float32 `[epochs, steps]`."""
    epochs = regression.epochs
    steps = batches.steps_per_epoch(pictures, regression.batch_size)
    rate = regression.schedule.rate(
        lr=regression.lr, epochs=epochs, steps_per_epoch=steps
    )
    with jax.numpy_dtype_promotion("standard"):  # Optax divides the count
        rates = jax.jit(jax.vmap(rate))(jnp.arange(epochs * steps))
    return np.asarray(rates, np.float32).reshape(epochs, steps)


def _begun(network: Network, task: _Task) -> _State:
    """Returns the state before the first update, in memory of its own."""
    variables: Any = jax.tree.map(jnp.copy, dict(network.variables))
    trained, _ = patterns.split(variables["params"], task.model.frozen)
    return _State(
        variables["params"],
        variables.get("batch_stats", {}),
        task.optimizer.transformation().init(trained),
    )


@functools.lru_cache(8)
def _compiled(task: _Task) -> Callable[..., tuple[_State, jax.Array]]:
    by_kernels = task.model.is_by_kernels()
    options = backend.compiler_options(task.model.dtype, by_kernels=by_kernels)
    update = partial(_updated, task)
    return jax.jit(update, donate_argnums=0, compiler_options=options)


def _updated(
    task: _Task,
    state: _State,
    key: jax.Array,
    rate: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    boxes: jax.Array,
) -> tuple[_State, jax.Array]:
    """Makes one update; returns the next state and the mean loss of the batch."""
    view_key, dropout_key = jax.random.split(key)
    seen, targets = _seen(task, view_key, images, boxes)
    first, fixed = patterns.split(state.params, task.model.frozen)

    def loss_of(trained: Any) -> tuple[jax.Array, Any]:
        params = patterns.merge(trained, fixed)
        outputs, updated = task.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            seen,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        return euclidean_loss(of_class(outputs, labels), targets).mean(), updated

    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(first)
    updates, opt_state = task.optimizer.transformation().update(
        grads, state.opt_state, first, learning_rate=rate
    )
    trained: Any = optax.apply_updates(first, updates)
    stats = updated.get("batch_stats", {})
    return _State(patterns.merge(trained, fixed), stats, opt_state), loss


def _seen(
    task: _Task, key: jax.Array, images: jax.Array, boxes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns random crops, half of them mirrored, and the boxes in shares of them."""
    place_key, flip_key = jax.random.split(key)
    count = len(images)
    scales, places = scaled_crop.drawn(place_key, count, (task.scale,))
    crops = scaled_crop.cut(images, scales, task.size, places)
    windows = scaled_crop.windows(images.shape[1:3], scales, task.size, places)
    targets = in_window(boxes, windows)
    flip = jax.random.bernoulli(flip_key, shape=(count, 1))
    crops = jnp.where(flip[:, :, None, None], crops[:, :, ::-1], crops)
    seen = normalize(crops, task.preprocessing)
    return seen, jnp.where(flip, mirrored(targets), targets)


def _tell(report: Callable[[int, float], None], epoch: int, losses: list) -> None:
    loss = float(np.mean(jax.device_get(losses)))
    if not math.isfinite(loss):
        raise RunError(f"the loss of epoch {epoch} is {loss}: lower lr")
    report(epoch, loss)
