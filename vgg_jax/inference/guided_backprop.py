"""Guided back-propagation: which pixels excite an answer (Springenberg et al., 2015).

"Striving for simplicity: the all convolutional net", section 3.4.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vgg_jax.inference import hooks, targets
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network
from vgg_jax.nn.preprocessing import ValueRange


def guided_backprop(
    network: Network,
    images: ArrayLike,
    classes: ArrayLike | None = None,
    *,
    value_range: ValueRange | None = None,
) -> jax.Array:
    """Returns the gradient of a class's logit whose way back leads through excitation.

    A ReLU passes a gradient where its input is positive; here, only if the gradient is
    positive too. A pure function of weights and images.

    Args:
        network: with a head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        classes: numbers of classes, `[B]` or one for all; None: the most probable.
        value_range: of floating-point images (`preprocessing.network_input`).

    Returns:
        float32 `[B, H, W, C]`, with respect to images in [0, 1].

    Raises:
        ConfigError: a class does not exist, or the images are not what was declared.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
    >>> guided_backprop(network, jnp.zeros((2, 8, 8, 3), "uint8"), 3).shape
    (2, 8, 8, 3)
    """
    unit = hooks.unit_range(network, images, value_range)
    classes = targets.classes_of(network, unit, classes)
    specs = [row.spec for row in layer_names.table(network.model)]
    relus = frozenset(spec.name for spec in specs if spec.kind == "relu")
    return _guided_backprop(network, unit, classes, relus)


@partial(jax.jit, static_argnames="relus")
def _guided_backprop(
    network: Network, unit: jax.Array, classes: jax.Array, relus: frozenset[str]
) -> jax.Array:
    hook = lambda name, x: _excited(x) if name in relus else x

    def score(unit: jax.Array) -> jax.Array:
        return targets.scores(hooks.run(network, unit, hook), classes).sum()

    return jax.grad(score)(unit)


@jax.custom_vjp
def _excited(x: jax.Array) -> jax.Array:
    """The identity, whose gradient loses what is negative."""
    return x


_excited.defvjp(lambda x: (x, None), lambda _, slope: (jnp.maximum(slope, 0),))
