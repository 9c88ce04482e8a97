"""Large batches, piece by piece, so that what is made of a piece takes less memory.

On CPU a convolution makes copies of its input several times its size (shifted images,
tiles), which live only while it runs. The batch of 32 images of 224 px would need
gigabytes for them.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from vgg_jax.nn import varying
from vgg_jax.nn.apart import apart
from vgg_jax.nn.spread import local_shape

BYTES = 64_000_000  # of a piece, at most, unless one image is more


def count(x: jax.Array, copies: int = 1) -> int:
    """Returns into how many pieces of the same number of images a batch is cut.

    One piece where the number of images is symbolic (an export) or they are spread over
    devices.

    Args:
        x: `[B, ...]`.
        copies: how many times the size of `x` is to be made of it.

    >>> x = jnp.zeros((8, 1000, 2000))  # 64 MB
    >>> count(x), count(x, copies=2)
    (1, 2)
    """
    if is_symbolic_dim(x.shape[0]):
        return 1
    batch, *rest = x.shape
    if not batch or local_shape(x)[0] != batch:
        return 1
    images = BYTES // (copies * math.prod(rest) * x.dtype.itemsize)
    largest = next((n for n in range(min(batch, images), 0, -1) if batch % n == 0), 1)
    return batch // largest


def mapped(function: Callable[..., Any], n: int, *arrays: jax.Array) -> Any:
    """Returns `function(*arrays)`, computed for n pieces of the batch in turn.

    Args:
        function: of arrays `[B, ...]` to such arrays.
        n: divides B.
        *arrays: `[B, ...]` each.

    >>> mapped(lambda x: 2 * x, 2, jnp.arange(4.0)).tolist()
    [0.0, 2.0, 4.0, 6.0]
    """
    return summed(lambda *piece: ((), function(*piece)), n, *arrays)[1]


def summed(
    function: Callable[..., tuple[Any, Any]], n: int, *arrays: jax.Array
) -> tuple[Any, Any]:
    """Returns what `function` returns, computed for n pieces of the batch in turn.

    Args:
        function: of arrays `[B, ...]` to sums over the batch, which are added up in
            float32, and to arrays `[B, ...]`.
        n: divides B.
        *arrays: `[B, ...]` each.

    >>> total, doubled = summed(lambda x: (x.sum(), 2 * x), 2, jnp.arange(4.0))
    >>> total.item(), doubled.tolist()
    (6.0, [0.0, 2.0, 4.0, 6.0])
    """
    if n == 1:
        return function(*arrays)
    size = arrays[0].shape[0] // n
    cut = lambda a, i: lax.dynamic_slice_in_dim(a, i * size, size)
    sums, parts = jax.eval_shape(lambda *a: function(*(cut(x, 0) for x in a)), *arrays)

    # Apart: fused with the last operation, putting a piece in its place is slow on CPU.
    compute = apart(lambda *piece: function(*piece))

    def body(i, carry):
        totals, wholes = carry
        sums, parts = compute(*(cut(a, i) for a in arrays))
        add = lambda total, part: total + part.astype(jnp.float32)
        put = lambda a, part: lax.dynamic_update_slice_in_dim(a, part, i * size, 0)
        return jax.tree.map(add, totals, sums), jax.tree.map(put, wholes, parts)

    totals = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), sums)
    zeros, shape = jax.tree.flatten(totals)
    totals = jax.tree.unflatten(shape, varying.alike(zeros, to=arrays))
    # Overwritten, whatever is in it. As a constant, XLA would make it at the start of
    # the program and keep it until here.
    some = arrays[-1][(0,) * arrays[-1].ndim]
    room = lambda a: jnp.full((n * size, *a.shape[1:]), some.astype(a.dtype))
    wholes = jax.tree.map(room, parts)
    totals, wholes = lax.fori_loop(0, n, body, (totals, wholes))
    return jax.tree.map(lambda a, like: a.astype(like.dtype), totals, sums), wholes
