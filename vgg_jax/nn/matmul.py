"""Products of matrices in bfloat16 on CPU by a kernel of our own, as dense layers take.

XLA:CPU takes twice as long for gradients by weights, unless it calls oneDNN; and a
program that does cannot be kept for the next start. The three products of a layer and
its gradients are operations of JAX (`operations.py`), each linear in both arguments, so
that their derivatives, of any order and mode, are made of the three.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jax.sharding import NamedSharding, PartitionSpec

from vgg_jax import machine
from vgg_jax.nn.by_platform import by_platform
from vgg_jax.nn.emitted import GROUPS, call, number, registers
from vgg_jax.nn.operations import operation, suits

_ROW_BLOCKS = 16  # of a group: their sums stay in the cache
# Up to which it costs little to transpose a matrix. Others are of 5x5 convolutions and
# larger ones, whose programs have oneDNN (`VGG.is_by_kernels`), which is faster there.
_FEW_ROWS = 1024


def product(x: jax.Array, w: jax.Array) -> jax.Array:
    """Returns `x @ w`, by the kernel where that is faster.

    Args:
        x: `[..., K]`.
        w: `[K, N]`, dtype of `x`.

    Returns:
        `[..., N]` in the dtype of `x`; by the kernel of sums in float32, rounded once.
    """
    if not is_fast(x, w):
        return x @ w
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return _product.bind(rows, w).reshape(*x.shape[:-1], w.shape[1])


def by_transposed(g: jax.Array, w: jax.Array) -> jax.Array:
    """Returns `g @ w.T`, `[M, N]` by `[K, N]`, by the kernel where that is faster."""
    if not is_fast(g, w):
        return lax.dot_general(g, w, (((1,), (1,)), ((), ())))
    return _by_transposed.bind(g, w)


def of_transposed(x: jax.Array, g: jax.Array) -> jax.Array:
    """Returns `x.T @ g`, `[M, K]` by `[M, N]`, by the kernel where that is faster.

    Whole on each device of a mesh, where the rows of both may be spread alike.
    """
    if not is_fast(x, g) or len(x) > _FEW_ROWS:
        whole = NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec())
        return lax.dot_general(x, g, (((0,), (0,)), ((), ())), out_sharding=whole)
    return _of_transposed.bind(x, g)


def multiply(x: jax.Array, w: jax.Array, *, implementation: str = "auto") -> jax.Array:
    """Returns `x @ w` by what is fastest on the platform that it is lowered for.

    Args:
        x, w: as for `product`.
        implementation: "auto", or "lax": by XLA's own product everywhere.
    """
    if implementation == "lax" or not is_fast(x, w):
        return x @ w
    return by_platform(x, w, cpu=product, default=jnp.matmul)


def dot_general(x, w, dimension_numbers, precision=None, preferred_element_type=None):
    """Multiplies as `jax.lax.dot_general` does, which `flax.linen.Dense` calls."""
    contracted, batch = dimension_numbers
    last_by_first = tuple(map(tuple, contracted)) == ((x.ndim - 1,), (0,))
    is_of_layer = last_by_first and not any(batch) and w.ndim == 2
    is_plain = precision is None and preferred_element_type is None
    if is_of_layer and is_plain and is_fast(x, w):
        return multiply(x, w)
    return lax.dot_general(x, w, dimension_numbers, precision, preferred_element_type)


def is_fast(x: jax.Array, w: jax.Array) -> bool:
    """Returns whether there is a kernel for matrices, and it is the fastest."""
    is_bfloat16 = x.dtype == w.dtype == jnp.bfloat16
    return is_bfloat16 and machine.multiplies_pairs() and suits(x, w)


def _call(a: jax.Array, b: jax.Array, *, transposed: bool = False) -> jax.Array:
    """Returns `a @ b`, or `a @ b.T`, by the kernel."""
    rows, features = len(a), b.shape[0 if transposed else 1]
    layout = registers()
    per_block = -(-rows // max(1, -(-rows // layout.rows)))  # as full as the others
    layout = layout._replace(rows=max(1, per_block))
    blocks = -(-rows // layout.rows)
    panel_count = -(-features // layout.panel)
    least = min(blocks, -(-GROUPS // max(1, panel_count)))
    groups = number(max(1, least, -(-blocks // _ROW_BLOCKS)))
    odd = a.shape[1] % 2
    a = jnp.pad(a, ((0, 0), (0, odd)))
    b = jnp.pad(b, ((0, 0), (0, odd)) if transposed else ((0, odd), (0, 0)))
    pairs = a.reshape(rows, a.shape[1] // 2, 2)
    arguments = pairs, b, number(panel_count), groups
    of = int(transposed), (rows, features), a.dtype
    return call("matmul", None, *of, *arguments, layout=layout)


_product = operation(
    "matrix_product",
    _call,
    lambda x, w: x @ w,
    lambda x, w: (x[0], w[1]),
)
_by_transposed = operation(
    "matrix_product_by_transposed",
    functools.partial(_call, transposed=True),
    lambda g, w: g @ w.T,
    lambda g, w: (g[0], w[0]),
)
_of_transposed = operation(
    "matrix_product_of_transposed",
    lambda x, g: _call(x.T, g),
    lambda x, g: x.T @ g,
    lambda x, g: (x[1], g[1]),
    maps=0,
)
ad.defbilinear(
    _product,
    lambda ct, x, w: _by_transposed.bind(ct, w),
    lambda ct, x, w: _of_transposed.bind(x, ct),
)
ad.defbilinear(
    _by_transposed,
    lambda ct, g, w: _product.bind(ct, w),
    lambda ct, g, w: _of_transposed.bind(ct, g),
)
ad.defbilinear(
    _of_transposed,
    lambda ct, x, g: _by_transposed.bind(g, ct),
    lambda ct, x, g: _product.bind(x, ct),
)
