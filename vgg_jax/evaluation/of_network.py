"""The score of a network as a value, wherever it is from, on images of a data set."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vgg_jax import mesh as meshes
from vgg_jax.data.batches import Batch
from vgg_jax.data.datasets import Split
from vgg_jax.errors import ConfigError, choose
from vgg_jax.evaluation.exact import Evaluation, evaluate, padded
from vgg_jax.evaluation.metrics import Sums, cross_entropy
from vgg_jax.interop.network import HEAD, Network
from vgg_jax.nn.preprocessing import normalize, resize
from vgg_jax.nn.views import VIEWS, averaged


def score(
    network: Network,
    split: Split,
    *,
    views: int = 1,
    batch_size: int = 500,
    report: Callable[[int], None] = lambda images_seen: None,
) -> Evaluation:
    """Evaluates a network on every image of a split, in float32.

    So it says the same on every machine, but for images whose two best classes are
    within rounding of one another.

    Args:
        network: with a head for the classes of the split.
        split: images of the size that the network takes, or smaller squares, which
            are enlarged as in training (`preprocessing.resize`).
        views: number of views of an image (`nn.views`).
        batch_size: images per batch, shared by all devices.
        report: called after each batch with the number of images evaluated so far.

    Raises:
        ConfigError: the network has no head, or fewer classes than the labels; or
            `views` is unknown.
    """
    choose(VIEWS, views, "views")
    network.check_weights(HEAD)
    known, asked = network.model.num_classes, int(split.labels.max()) + 1
    if asked > known:
        raise ConfigError(
            f"{network.source} has {known} classes, and the labels are of {asked}"
        )
    height, width, channels = split.image_shape
    enlarged = network.size if height == width < network.size else 0
    height, width = enlarged or height, enlarged or width
    network.check_map((1, height, width, channels), HEAD)
    mesh = meshes.over()
    network = network.configured(dtype="float32")
    step = jax.jit(partial(_step, network, views, enlarged, mesh))
    count = padded(batch_size, len(split), parts=mesh.size)
    network = network.prepared((count // mesh.size, height, width))
    found = evaluate(
        lambda variables, batch: step(variables, meshes.in_parts(batch, mesh)),
        meshes.on_all(network.variables, mesh),
        split,
        batch_size=batch_size,
        parts=mesh.size,
        report=report,
    )
    assert found is not None  # only a `stop` abandons it
    return found


def _step(
    network: Network,
    views: int,
    enlarged: int,
    mesh: Mesh,
    variables: Any,
    batch: Batch,
):
    """Returns the totals of a batch, and its logits; `enlarged` is as of `resize`."""

    def seen(variables: Any, images: jax.Array) -> jax.Array:
        apply = partial(network.model.apply, variables)
        images = normalize(resize(jnp.asarray(images), enlarged), network.preprocessing)
        return averaged(apply, images, views)

    logits = meshes.by_rows(seen, mesh)(variables, batch.images)
    return Sums.of(cross_entropy(logits, batch.labels), logits, batch.labels), logits
