"""Functions that XLA compiles as calls, apart from what is around them."""

from collections.abc import Callable
from functools import wraps

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import AxisType


def apart(
    function: Callable, *, static: tuple[int, ...] = (), whole: bool = False
) -> Callable:
    """Returns `function` as a call that XLA neither inlines nor fuses.

    Its arguments are read from memory, then, where XLA might compute them once more
    from what they were made of.

    In several processes it is an ordinary function where its arrays may be spread over
    devices. A program whose calls sum over all devices mixes those sums up there once
    it comes from JAX's compilation cache (jaxlib 0.12, CPU; `in_processes.py`).

    Args:
        function: of arrays to arrays.
        static: which arguments are hashable constants.
        whole: whether its arrays are whole on each device, so that none waits in it for
            another.
    """
    compiled = jax.jit(function, static_argnums=static)

    @wraps(function)
    def call(*arguments):
        if not (whole or _is_local(arguments)) and jax.process_count() > 1:
            return compiled(*arguments)
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    return call


def _is_local(arguments: tuple) -> bool:
    """Whether arrays are those of one device, as `jax.shard_map` shows them."""
    meshes = [
        jax.typeof(leaf).sharding.mesh
        for leaf in jax.tree.leaves(arguments)
        if isinstance(leaf, jax.Array)
    ]
    return any(AxisType.Manual in mesh.axis_types for mesh in meshes)
