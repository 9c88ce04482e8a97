"""Precision and recall of generated images, by nearest neighbours among features.

Kynkäänniemi, Karras, Laine, Lehtinen & Aila (2019), "Improved precision and recall
metric for assessing generative models": a set of images is a manifold, the union of
balls around its features, each as far as the k-th nearest other one. Precision is the
share of generated images on the manifold of the real ones, recall the reverse. Their
features are VGG-16's `relu7` of ImageNet, at 224 pixels, and k = 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.fields import check_value, in_range

_CHUNK = 1024  # rows of the table of distances at once


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1].

    Attributes:
        precision: of generated images that look real.
        recall: of real images that could have been generated.
    """

    precision: float
    recall: float


def precision_recall(
    real: ArrayLike, generated: ArrayLike, *, neighbours: int = 3
) -> PrecisionRecall:
    """Returns precision and recall of generated images.

    Args:
        real: features of real images, `[N, D]`, as `features` returns those of `relu7`.
        generated: features of generated images, `[M, D]`.
        neighbours: k; the radius of a ball reaches the k-th nearest other feature.

    Raises:
        ConfigError: the features are not two tables of as many columns, or hold NaN, or
            a set has no more than k images; or k is no whole number from 1.

    >>> real = jnp.array([[0.0], [1.0], [2.0], [3.0]])
    >>> precision_recall(real, jnp.array([[1.5], [2.5], [9.0], [10.0]]), neighbours=1)
    PrecisionRecall(precision=0.5, recall=0.75)
    """
    check_value("neighbours", neighbours, int, in_range(1))
    real, generated = (jnp.asarray(x, jnp.float32) for x in (real, generated))
    for x in (real, generated):
        if x.ndim != 2 or x.shape[1] != real.shape[1] or len(x) <= neighbours:
            raise ConfigError(
                f"features {list(real.shape)} and {list(generated.shape)} must be "
                f"[N, D] and [M, D], with more than neighbours={neighbours} rows each"
            )
        if not jnp.isfinite(x).all():
            raise ConfigError("features hold NaN or infinity: nothing is near them")
    return PrecisionRecall(
        _share_inside(generated, real, neighbours),
        _share_inside(real, generated, neighbours),
    )


def _share_inside(points: jax.Array, centres: jax.Array, neighbours: int) -> float:
    """Returns the share of points in at least one ball around the centres."""
    radii = jnp.concatenate(
        [_radii(part, centres, neighbours) for part in _chunks(centres)]
    )
    inside = [_inside(part, centres, radii) for part in _chunks(points)]
    return float(jnp.concatenate(inside).mean())


def _chunks(rows: jax.Array) -> list[jax.Array]:
    return [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]


def _squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `[len(a), len(b)]`, float32, not negative."""
    products = jnp.matmul(a, b.T, precision="highest")
    squares = jnp.square(a).sum(1)[:, None] + jnp.square(b).sum(1)[None]
    return jnp.maximum(squares - 2 * products, 0)


@jax.jit
def _inside(points: jax.Array, centres: jax.Array, radii: jax.Array) -> jax.Array:
    within = _squared_distances(points, centres) <= radii[None]
    return within.any(1).astype(jnp.float32)


@jax.jit(static_argnums=2)
def _radii(points: jax.Array, centres: jax.Array, neighbours: int) -> jax.Array:
    """Returns the squared distance to the k-th nearest other centre."""
    nearest, _ = jax.lax.top_k(-_squared_distances(points, centres), neighbours + 1)
    return -nearest[:, -1]
