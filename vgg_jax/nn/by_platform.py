"""Which of two implementations a program gets: by the platform it is lowered for."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax

from vgg_jax.nn import varying

_known = ContextVar("known", default="")


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Says that what is traced within is for this platform and no other.

    Otherwise the branches of `lax.platform_dependent` for other platforms are traced
    and differentiated too, which each start of a run waits for.

    Args:
        platform: "cpu", "gpu" or "tpu", as of `jax.Device.platform`.
    """
    token = _known.set(platform)
    try:
        yield
    finally:
        _known.reset(token)


def by_platform(
    *arrays: jax.Array, cpu: Callable[..., Any], default: Callable[..., Any]
) -> Any:
    """Returns `cpu(*arrays)` in a program for a CPU, and `default(*arrays)` elsewhere.

    Outside `lowered_for` that is `lax.platform_dependent`: it is decided as the program
    is lowered, so that one exported for a GPU from a CPU host is right.

    >>> double = lambda x: 2 * x
    >>> with lowered_for("tpu"):
    ...     by_platform(1, cpu=double, default=lambda x: x)
    1
    """
    arrays = tuple(varying.alike(arrays))
    if not (platform := _known.get()):
        return lax.platform_dependent(*arrays, cpu=cpu, default=default)
    return (cpu if platform == "cpu" else default)(*arrays)
