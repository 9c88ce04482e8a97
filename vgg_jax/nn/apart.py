"""Functions that XLA compiles as calls, apart from what is around them."""

from collections.abc import Callable
from functools import wraps

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def apart(function: Callable, *, static: tuple[int, ...] = ()) -> Callable:
    """Returns `function` as a call that XLA neither inlines nor fuses.

    Its arguments are read from memory, then, where XLA might compute them once more
    from what they were made of.

    Args:
        function: of arrays to arrays.
        static: which arguments are hashable constants.
    """
    compiled = jax.jit(function, static_argnums=static)

    @wraps(function)
    def call(*arguments):
        with set_xla_metadata(inlineable="false"):
            return compiled(*arguments)

    return call
