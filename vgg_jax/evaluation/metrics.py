"""Sums and counts: metrics that add up over batches and divide once."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct


class Sums(struct.PyTreeNode):
    """Totals over the examples seen. Add two with `+`.

    Attributes:
        count: examples.
        loss: summed loss.
        top1: examples whose label is the first guess.
        top5: examples whose label is among the first five guesses.
    """

    count: jax.Array
    loss: jax.Array
    top1: jax.Array
    top5: jax.Array

    @classmethod
    def zero(cls) -> "Sums":
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(4)))

    @classmethod
    def of(cls, losses: jax.Array, logits: jax.Array, labels: jax.Array) -> "Sums":
        """Sums of a batch: losses `[B]`, logits `[B, K]`, labels int `[B]`.

        A negative label marks padding, which counts nowhere.
        """
        real = labels >= 0
        own = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[:, None], axis=1)
        # Ties and NaN count against the network: a constant must not score 100%.
        rank = jnp.sum(~(logits < own), axis=1)
        return cls(
            count=jnp.sum(real, dtype=jnp.float32),
            loss=jnp.sum(jnp.where(real, losses, 0.0)),
            top1=jnp.sum(real & (rank <= 1), dtype=jnp.float32),
            top5=jnp.sum(real & (rank <= 5), dtype=jnp.float32),
        )

    def __add__(self, other: "Sums") -> "Sums":
        return jax.tree.map(jnp.add, self, other)

    def means(self) -> dict[str, float]:
        """`loss`, `accuracy` and `top5` as means over the examples, in [0, 1]."""
        count, loss, top1, top5 = (float(x) for x in jax.tree.leaves(self))
        n = max(count, 1.0)
        return {"loss": loss / n, "accuracy": top1 / n, "top5": top5 / n}


def cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of each example, float32 `[B]`, in nats.

    Args:
        logits: `[B, K]`.
        labels: int `[B]`.
        smoothing: label smoothing in [0, 1): this share spread evenly over K classes.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def confusion(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """int32 `[K, K]`: how many examples of the row's class were called the column's.

    Rows of negative labels (padding) are left out.
    """
    classes = logits.shape[-1]
    guess = jnp.argmax(logits, axis=-1)
    row = jnp.where(labels >= 0, labels, classes)  # out of range: dropped
    return jnp.zeros((classes, classes), jnp.int32).at[row, guess].add(1, mode="drop")


def per_class(matrix: np.ndarray, names: tuple[str, ...]) -> Mapping[str, float]:
    """Accuracy of each class from a confusion matrix; classes not seen are left out."""
    totals = matrix.sum(axis=1)
    return {
        name: float(matrix[i, i] / totals[i])
        for i, name in enumerate(names)
        if totals[i]
    }
