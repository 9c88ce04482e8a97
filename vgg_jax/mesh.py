"""The devices that a program computes on, and what each of them holds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vgg_jax.errors import ConfigError

# The axes: a batch is spread along both; along the second, so are the columns of dense
# kernels (`training.placement`).
DATA, MODEL = AXES = "data", "model"


def over(data: int = 0, model: int = 1) -> Mesh:
    """Returns a mesh of the first devices that JAX sees, over which batches are spread.

    Args:
        data: number of groups of devices; 0: as many as there are.
        model: number of devices of a group, which share the dense kernels.

    Raises:
        ConfigError: JAX sees fewer; or some would be left over though there are several
            processes.

    >>> over(1).shape
    OrderedDict({'data': 1, 'model': 1})
    """
    devices = jax.devices()
    count, there = data * model, len(devices)
    asked = f"mesh.data={data}" + f", mesh.model={model}" * (model > 1)
    if max(count, model) > there:
        raise ConfigError(
            f"{asked}, but JAX sees {there} device{'s' * (there > 1)}: use that or "
            "fewer, or 0 for all"
        )
    if jax.process_count() > 1 and 0 < count < there:
        raise ConfigError(
            f"{asked}, but the {jax.process_count()} processes have {there} devices: "
            "set mesh.data=0, and start fewer processes"
        )
    return of(devices[: count or there], model)


def of(devices: Sequence[Any], model: int = 1) -> Mesh:
    """Returns a mesh of these devices, over which batches are spread.

    Args:
        devices: neighbours share the dense kernels.
        model: see `over`.

    Raises:
        ConfigError: the devices do not make whole groups.
    """
    groups, rest = divmod(len(devices), model)
    if rest:
        raise ConfigError(
            f"{len(devices)} devices make no groups of mesh.model={model}: use a "
            "divisor, or set mesh.data"
        )
    auto = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((groups, model), AXES, axis_types=auto, devices=devices)


def put(tree: Any, shardings: Any) -> Any:
    """Returns arrays, the same ones in all processes, on devices of all of them.

    Args:
        tree: of arrays.
        shardings: of each; or one for all.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def one(x: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        x = np.asarray(x)  # `device_put` would compare those of all processes
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(one, tree, shardings)


def on_all(tree: Any, mesh: Mesh) -> Any:
    """Returns arrays whole on each device; of a mesh of one they stay as they are."""
    return tree if mesh.size == 1 else put(tree, whole(mesh))


def in_parts(rows: Any, mesh: Mesh) -> Any:
    """Returns arrays of rows spread over the devices; of one they stay as they are."""
    return rows if mesh.size == 1 else put(rows, spread(mesh))


def by_rows(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns a function of rows, of which each device computes those that it holds.

    So it computes by what is fastest on one device, kernels of our own too.

    Args:
        function: of a tree that is whole on each device, and of trees of rows, to rows;
            no row depends on others.
        mesh: the devices, as of `in_parts`; of one the function stays as it is.

    >>> import jax.numpy as jnp
    >>> by_rows(lambda tree, rows: tree * rows, over(1))(2, jnp.arange(3)).tolist()
    [0, 2, 4]
    """
    if mesh.size == 1:
        return function

    def on_each(tree: Any, *rows: Any) -> Any:
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(P(), *(P(AXES) for _ in rows)),
            out_specs=P(AXES),
            check_vma=False,  # of which kernels of our own know nothing
        )(tree, *rows)

    return on_each


def shared[Tree](tree: Tree) -> Tree:
    """Returns the arrays of the first process, in all of them."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(jax.device_get(tree))


def own_rows(mesh: Mesh | None, count: int) -> np.ndarray:
    """Returns which rows of spread arrays the devices of this process hold, rising.

    Args:
        mesh: the devices; None: of this process alone.
        count: number of rows.

    >>> own_rows(over(1), 3).tolist()
    [0, 1, 2]
    """
    if mesh is None or jax.process_count() == 1:
        return np.arange(count)
    places = spread(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[index] for index in places]))


def assembled[Tree](rows: Tree, mesh: Mesh | None, count: int) -> Tree:
    """Returns spread arrays of so many rows, of which each process has its own ones.

    In a single process the arrays stay as they are, and so do those that are spread.
    """
    if mesh is None or jax.process_count() == 1:
        return rows

    def one(x: Any) -> jax.Array:
        if isinstance(x, jax.Array):
            return x
        shape = (count, *x.shape[1:])
        return jax.make_array_from_process_local_data(spread(mesh), x, shape)

    return jax.tree.map(one, rows)


def gathered(tree: Any) -> Any:
    """Returns the arrays of a program of all devices, whole, in each process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def spread(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays of which each device holds a part of the rows."""
    return NamedSharding(mesh, P(AXES))


def whole(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays of which each device holds all."""
    return NamedSharding(mesh, P())
