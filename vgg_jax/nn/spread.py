"""How arrays are spread over the devices of a mesh, while a program is traced."""

import jax
from jax.sharding import AxisType


def local_shape(x: jax.Array) -> tuple[int, ...]:
    """Returns the shape of the part of an array that each device holds.

    That is the whole shape on one device, inside `jax.shard_map`, which shows each
    device its part alone, and over axes of type Auto, which the compiler spreads later.

    >>> local_shape(jax.numpy.zeros((4, 2)))
    (4, 2)
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Manual in sharding.mesh.axis_types:
        return x.shape
    return sharding.shard_shape(x.shape)
