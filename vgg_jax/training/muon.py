"""Muon: the update of a kernel is the orthogonal matrix nearest to its velocity.

Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks". The
iteration is `optax.contrib`'s (same coefficients); here it runs on the Gram matrix,
`[C_out, C_out]`, which is as exact and, where a kernel has nine times as many inputs as
outputs, takes two fifths of the multiplications (counted, 512 outputs).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from vgg_jax import mesh as meshes
from vgg_jax.training import assignment, shards

_A, _B, _C = 3.4445, -4.7750, 2.0315  # one step is a X + b (X X') X + c (X X')^2 X
_STEPS = 5
_EPSILON = 1e-8


def orthogonal(x: jax.Array) -> jax.Array:
    """Returns about `U V'` of the singular value decomposition `x = U S V'`.

    Five Newton-Schulz steps: singular values end between 0.7 and 1.2, except those far
    below the largest.

    Args:
        x: float32 `[m, n]`.

    Returns:
        float32 `[m, n]`.

    >>> orthogonal(jnp.array([[3.0, 0.0], [0.0, 2.0]])).round(0).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if x.shape[0] > x.shape[1]:
        return orthogonal(x.T).T
    dot = lambda *a: jnp.matmul(*a, precision="highest")
    x = x / (jnp.linalg.norm(x) + _EPSILON)
    gram, total = dot(x, x.T), jnp.eye(len(x), dtype=x.dtype)
    for _ in range(_STEPS):
        step = _A * jnp.eye(len(x), dtype=x.dtype) + _B * gram + _C * dot(gram, gram)
        total = dot(step, total)
        gram = dot(dot(step, gram), step)
    return dot(total, x)


def _of_kernel(velocity: jax.Array) -> jax.Array:
    """Returns the direction of a kernel `[k, k, C_in, C_out]`; filters' norms are 1."""
    matrix = velocity.reshape(-1, velocity.shape[-1])
    inputs, outputs = matrix.shape
    scale = max(1.0, outputs / inputs) ** 0.5
    return scale * orthogonal(matrix).reshape(velocity.shape)


def _operations(velocity: jax.Array) -> float:
    """Returns the multiplications of `_of_kernel`, about."""
    outputs = velocity.shape[-1]
    inputs = velocity.size // outputs
    short, long = sorted((inputs, outputs))
    return 2 * short**2 * long + 4 * _STEPS * short**3


def _scaled(direction: jax.Array, factor: jax.Array) -> jax.Array:
    return factor * direction


def _is_of_convolution(path: tuple, velocity: jax.Array) -> bool:
    return path[-1].key == "kernel" and velocity.ndim == 4


def of_kernels(factor: float) -> optax.GradientTransformationExtraArgs:
    """Orthogonalises the velocity of each convolution kernel; leaves the others.

    Its `update` takes the extra arguments `learning_rate` and, if several devices share
    the work, `mesh`: each does some of the kernels for all (`assignment`).

    Args:
        factor: this times the extra argument `learning_rate` is the norm of each
            filter's update.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        del params
        leaves, tree = jax.tree_util.tree_flatten_with_path(updates)
        moved = [leaf for _, leaf in leaves]
        chosen = [i for i, leaf in enumerate(leaves) if _is_of_convolution(*leaf)]
        velocities = [moved[i] for i in chosen]
        of_kernel, scaled = _of_kernel, _scaled
        if mesh := extra_args.get("mesh"):  # fused with the decay it rounds otherwise
            of_kernel = shards.alike(_of_kernel, mesh)
            scaled = shards.alike(_scaled, mesh)
        directions = assignment.mapped(
            of_kernel,
            velocities,
            list(map(_operations, velocities)),
            mesh or meshes.over(1),
        )
        for i, direction in zip(chosen, directions, strict=True):
            moved[i] = scaled(direction, factor * extra_args["learning_rate"])
        return jax.tree.unflatten(tree, moved), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )
