"""What a localiser is: a `Network` whose last layer is a bounding box.

That is one box for whatever class a picture has (single-class regression, SCR), or one
for each class (per-class regression, PCR), in shares of the window that the network
sees. `training.localisation.fine_tune` makes a localiser out of a classifier.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vgg_jax.data.boxes import QUANTITIES
from vgg_jax.errors import ConfigError
from vgg_jax.interop.network import Network, check_network

ANY = "any"  # stands for the class where one box is for all of them


def output_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns what the outputs of a localiser are, its `Network.class_names`.

    Args:
        classes: that have a box each; `(ANY,)` for one box for all of them.

    >>> output_names([ANY])
    ('any: centre x', 'any: centre y', 'any: width', 'any: height')
    """
    return tuple(f"{name}: {quantity}" for name in classes for quantity in QUANTITIES)


def check_localiser(network: Network) -> None:
    """Checks that a network's outputs are boxes.

    Raises:
        ConfigError: it is a classifier, or no network, or does not say its size.
    """
    check_network(network)
    names = network.class_names[:: len(QUANTITIES)]
    classes = [name.rpartition(":")[0] for name in names]
    if not names or network.class_names != output_names(classes):
        raise ConfigError(
            f"the network from {network.source!r} has classes, not boxes: "
            "training.localisation.fine_tune makes a localiser out of it"
        )
    if not network.size:
        raise ConfigError(
            f"the network from {network.source!r} does not say the size of the images "
            "of its training: network.replace(size=...)"
        )


def of_class(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the boxes that a localiser's outputs hold for classes, `[B, 4]`.

    Args:
        outputs: float32 `[B, 4]`, one box for any class, or `[B, 4 K]`.
        labels: int32 `[B]`.

    >>> of_class(jnp.arange(8.0)[None], jnp.array([1])).tolist()
    [[4.0, 5.0, 6.0, 7.0]]
    """
    boxes = outputs.reshape(len(outputs), -1, len(QUANTITIES))
    if boxes.shape[1] == 1:
        return boxes[:, 0]
    return jnp.take_along_axis(boxes, labels[:, None, None], axis=1)[:, 0]
