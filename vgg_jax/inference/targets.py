"""Which class of each image is to be explained, and how sure a network is of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.inference import hooks
from vgg_jax.interop.network import HEAD, Network


def classes_of(network: Network, unit: jax.Array, given: ArrayLike | None) -> jax.Array:
    """Returns the class to explain of each image.

    Args:
        network: with a head.
        unit: `[B, H, W, C]` in [0, 1].
        given: numbers of classes, `[B]` or one for all; None: those that the network
            finds most probable.

    Returns:
        int32 `[B]`.

    Raises:
        ConfigError: there is no such class, or the network has no head, or one for
            images of another size.
    """
    network.check_weights(HEAD)
    network.check_map(unit.shape, HEAD)
    if given is None:
        return _most_probable(network, unit)
    if not isinstance(given, Tracer):
        _check(np.asarray(given), network.model.num_classes, len(unit))
    return jnp.broadcast_to(jnp.asarray(given, jnp.int32), unit.shape[:1])


def _check(given: np.ndarray, count: int, images: int) -> None:
    if not np.issubdtype(given.dtype, np.integer) or given.shape not in ((), (images,)):
        raise ConfigError(
            f"classes={given.tolist()!r} must be a number, or one for each of the "
            f"{images} images"
        )
    if given.size and not 0 <= given.min() <= given.max() < count:
        wrong = given.min() if given.min() < 0 else given.max()
        raise ConfigError(
            f"class {wrong} is not one of the {count} that the network knows: 0 to "
            f"{count - 1}"
        )


@jax.jit
def _most_probable(network: Network, unit: jax.Array) -> jax.Array:
    return hooks.run(network, unit, hooks.unchanged).argmax(1).astype(jnp.int32)


def scores(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the entry of each row at its class.

    Args:
        logits: `[B, num_classes]`, or their probabilities.
        classes: int32 `[B]`.

    >>> scores(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0])).tolist()
    [2.0, 3.0]
    """
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]
