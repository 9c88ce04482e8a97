"""Dense layers whose columns the devices of a group share.

Krizhevsky (2014), "One weird trick for parallelizing convolutional neural networks":
convolutions have few weights and many activations, and divide their batch; dense layers
have many weights and few activations, and divide their columns. In between the devices
of a group (the axis `model` of the mesh) give one another their activations.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vgg_jax.mesh import AXES, DATA, MODEL
from vgg_jax.nn.architecture import HEAD
from vgg_jax.training.placement import are_divided


def activations_over(mesh: Mesh) -> AbstractContextManager[None]:
    """Returns a context in which networks are traced for a mesh.

    Images and logits are spread over all devices. A dense layer that is divided sees
    all images of its group.

    >>> from vgg_jax.mesh import over
    >>> layer, x = nn.Dense(2), jax.numpy.ones((1, 3))
    >>> with activations_over(over(1)):  # on one device there is nothing to divide
    ...     layer.init_with_output(jax.random.key(0), x)[0].shape
    (1, 2)
    """
    if mesh.shape[MODEL] == 1:
        return contextlib.nullcontext()

    def placed(x: jax.Array, *axes: Any) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*axes)))

    def interceptor(
        call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        if (
            not isinstance(context.module, nn.Dense)
            or context.method_name != "__call__"
        ):
            return call(*args, **kwargs)
        (x,) = args
        if not are_divided(context.module.features, mesh):
            return placed(call(placed(x, AXES)), AXES)
        y = placed(call(placed(x, DATA)), DATA, MODEL)
        return placed(y, AXES) if context.module.name == HEAD else y

    return nn.intercept_methods(interceptor)
