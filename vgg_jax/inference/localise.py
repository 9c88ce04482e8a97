"""Where the object of a picture is: the two protocols of the paper's appendix A.

A network sees windows of the size that it was trained on: the central crop, or all
those of a dense application, whose boxes are merged.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vgg_jax.data.boxes import QUANTITIES, of_window
from vgg_jax.data.pictures import centred
from vgg_jax.errors import ConfigError
from vgg_jax.fields import Rule, check_value, in_range
from vgg_jax.inference.box_merging import THRESHOLD, merged
from vgg_jax.inference.descriptors import scaled
from vgg_jax.inference.localiser import check_localiser, of_class
from vgg_jax.interop.network import HEAD, Network, check_network
from vgg_jax.nn.architecture import least_size
from vgg_jax.nn.dense import activation_map
from vgg_jax.nn.images import ValueRange

_SCALES = Rule(lambda scales: scales and min(scales) > 0, "in pixels: (256, 384)")


class Located(NamedTuple):
    """The guesses of class and box for pictures, the most probable class first.

    Attributes:
        labels: int32 `[B, k]`.
        boxes: float32 `[B, k, 4]`, in shares of the picture (`data.boxes`).
        scores: float32 `[B, k]`, probabilities of the class, added up over the windows
            whose boxes were merged.
    """

    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


def central_boxes(
    localiser: Network,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    scale: int,
    value_range: ValueRange | None = None,
) -> jax.Array:
    """Returns the boxes that the central crops of pictures have for given classes.

    The paper's first protocol, which gives the network the true class.

    Args:
        localiser: one box for all classes, or one for each.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        labels: int `[B]`, classes.
        scale: smaller side in pixels to which pictures are scaled, at least the size of
            the localiser's training, which is what is cut out of their centre.
        value_range: of floating-point images (`images.network_input`).

    Returns:
        float32 `[B, 4]`, in shares of the picture (`data.boxes`). What is beyond the
        crop can be part of a box.

    Raises:
        ConfigError: it is no localiser, the scale is too small, or the images are not
            what was declared.

    >>> from vgg_jax.inference.localiser import ANY, output_names
    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> localiser = random(VGG("conv3-8 |", 4, hidden=(8,)), "unit", size=8,
    ...                    class_names=output_names([ANY]))
    >>> images = np.zeros((2, 16, 16, 3), np.uint8)
    >>> central_boxes(localiser, images, [0, 7], scale=10).shape
    (2, 4)
    """
    check_localiser(localiser)
    check_value("scale", scale, int, in_range(localiser.size))
    seen = localiser.seen(images, HEAD, value_range)
    outputs, window = _of_centre(localiser, seen, scale)
    return of_window(of_class(outputs, jnp.asarray(labels, jnp.int32)), window)


@partial(jax.jit, static_argnames="scale")
def _of_centre(localiser, images, scale) -> tuple[jax.Array, jax.Array]:
    """Returns the outputs for the central crops, and these as a box, `[1, 4]`."""
    images, size = scaled(images, scale), localiser.size
    height, width = images.shape[1:3]
    top, left = centred(height, size), centred(width, size)
    crops = images[:, top : top + size, left : left + size]
    outputs = localiser.model.apply(localiser.variables, crops)
    return outputs, jnp.asarray([_box(left, top, size, height, width)], jnp.float32)


def _box(left, top, size, height, width) -> tuple[float, ...]:
    """Returns a square of a picture in shares of it."""
    half = size / 2
    return (left + half) / width, (top + half) / height, size / width, size / height


def localise(
    localiser: Network,
    classifier: Network,
    images: ArrayLike,
    *,
    scales: Sequence[int],
    top: int = 5,
    threshold: float = THRESHOLD,
    value_range: ValueRange | None = None,
) -> Located:
    """Returns the most probable classes of pictures, and a box for each.

    The paper's second protocol. Both networks are applied densely; a class has a box
    from every window at every scale, these are merged greedily (`box_merging`), and the
    one that gathers the highest class scores is the guess. Pooling offsets are left
    out, as in the paper. Class probabilities are averaged over windows, then scales.

    Args:
        localiser: one box for all classes, or one for each of the classifier's.
        classifier: of the same configuration and size, with the "paper" head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        scales: each is a smaller side in pixels to which pictures are scaled.
        top: guesses per picture; at most one per class.
        threshold: see `box_merging.merged`.
        value_range: of floating-point images (`images.network_input`).

    Raises:
        ConfigError: the networks do not fit one another or are no localiser and
            classifier, or a scale is too small, or the images are not what was
            declared.

    >>> from vgg_jax.inference.localiser import ANY, output_names
    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> model = VGG("conv3-8 |", 5, hidden=(8,))
    >>> classifier = random(model, "unit", size=8)
    >>> localiser = random(model.clone(num_classes=4), "unit", size=8,
    ...                    class_names=output_names([ANY]))
    >>> images = np.zeros((2, 16, 16, 3), np.uint8)
    >>> located = localise(localiser, classifier, images, scales=(10, 12), top=3)
    >>> located.labels.shape, located.boxes.shape
    ((2, 3), (2, 3, 4))
    """
    check_value("scales", scales, Sequence[int], _SCALES)
    check_value("top", top, int, in_range(1))
    _check_pair(localiser, classifier)
    seen = [net.seen(images, HEAD, value_range) for net in (localiser, classifier)]
    parts = [_of_windows(localiser, classifier, seen, s) for s in scales]
    boxes, scores = zip(*parts, strict=True)
    means = np.mean([part.mean(1) for part in scores], 0)
    labels = np.argsort(-means, axis=1, kind="stable")[:, :top].astype(np.int32)
    boxes, scores = np.concatenate(boxes, 1), np.concatenate(scores, 1)
    found = [
        [_best(b, s, label, threshold) for label in row]
        for b, s, row in zip(boxes, scores, labels, strict=True)
    ]
    best = np.array([[box for box, _ in row] for row in found], np.float32)
    gathered = np.array([[score for _, score in row] for row in found], np.float32)
    return Located(labels, best, gathered)


def _check_pair(localiser: Network, classifier: Network) -> None:
    check_localiser(localiser)
    check_network(classifier)
    boxes = localiser.model.num_classes // len(QUANTITIES)
    if boxes not in (1, classifier.model.num_classes):
        raise ConfigError(
            f"the localiser has boxes for {boxes} classes, and the classifier "
            f"{classifier.model.num_classes} classes: give the one that it is from"
        )
    shapes = [(n.model.variant, n.model.head, n.size) for n in (localiser, classifier)]
    if shapes[0] != shapes[1] or localiser.model.head != "paper":
        raise ConfigError(
            f"localiser and classifier are {shapes[0]} and {shapes[1]}: for a dense "
            "application both must have head='paper', one configuration and one size"
        )


def _of_windows(
    localiser: Network, classifier: Network, seen: Sequence[jax.Array], scale: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes `[B, n, K or 1, 4]` and class probabilities `[B, n, K]`."""
    outputs, sides = _dense(localiser, seen[0], scale)
    logits, _ = _dense(classifier, seen[1], scale)
    batch, rows, columns, _ = outputs.shape
    stride, size = least_size(localiser.model.variant), localiser.size
    windows = np.array(
        [
            _box(stride * column, stride * row, size, *sides)
            for row in range(rows)
            for column in range(columns)
        ],
        np.float32,
    )
    boxes = np.asarray(outputs).reshape(batch, rows * columns, -1, len(QUANTITIES))
    probabilities = np.asarray(jax.nn.softmax(logits)).reshape(batch, len(windows), -1)
    return of_window(boxes, windows[None, :, None]), probabilities


def _dense(
    network: Network, images: jax.Array, scale: int
) -> tuple[jax.Array, tuple[int, ...]]:
    """Returns the map of the outputs, and the sides of the scaled pictures."""
    shape = jax.eval_shape(partial(scaled, scale=scale), images).shape
    return _map(network, images, scale), shape[1:3]


@partial(jax.jit, static_argnames="scale")
def _map(network, images, scale) -> jax.Array:
    return activation_map(network.model, network.variables, scaled(images, scale))


def _best(
    boxes: np.ndarray, scores: np.ndarray, label: int, threshold: float
) -> tuple[np.ndarray, float]:
    """Returns the merged box with the highest score for a class, and the score."""
    column = label if boxes.shape[1] > 1 else 0
    left, gathered = merged(boxes[:, column], scores[:, label], threshold)
    return left[0], gathered[0]
