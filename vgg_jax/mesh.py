"""The devices that a program computes on, and what each of them holds."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vgg_jax.errors import ConfigError

DATA = "data"  # the axis along which a batch is spread


def over(count: int = 0) -> Mesh:
    """Returns a mesh of so many devices, over which batches are spread.

    Args:
        count: number of devices, the first that JAX sees; 0: all.

    Raises:
        ConfigError: JAX sees fewer.

    >>> over(1).shape
    OrderedDict({'data': 1})
    """
    devices = jax.devices()
    if count > len(devices):
        raise ConfigError(
            f"mesh.data={count}, but JAX sees {len(devices)} "
            f"device{'s' * (len(devices) > 1)}: use that or fewer, or 0 for all"
        )
    devices = devices[: count or len(devices)]
    return jax.make_mesh(
        (len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices
    )


def placed[Tree](tree: Tree, mesh: Mesh) -> Tree:
    """Returns arrays whole on each device; of a mesh of one they stay as they are.

    A program is compiled once more where its arguments come placed another way.
    """
    return tree if mesh.size == 1 else jax.device_put(tree, whole(mesh))


def spread(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays of which each device holds a part of the rows."""
    return NamedSharding(mesh, P(DATA))


def whole(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays of which each device holds all."""
    return NamedSharding(mesh, P())
