"""Sums and counts: metrics that add up over batches and divide once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct


class Sums(struct.PyTreeNode):
    """Totals over the examples seen, float32 scalars. Add two with `+`.

    Attributes:
        count: number of examples.
        loss: summed loss.
        top1: number of examples whose label is the first guess.
        top5: number of examples whose label is among the first five guesses.

    >>> logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]])
    >>> labels = jnp.array([0, 0, -1])  # the last one is padding
    >>> sums = Sums.of(cross_entropy(logits, labels), logits, labels)
    >>> (sums + sums).count.item(), (sums + sums).means()["accuracy"]
    (4.0, 0.5)
    """

    count: jax.Array
    loss: jax.Array
    top1: jax.Array
    top5: jax.Array

    @classmethod
    def zero(cls) -> "Sums":
        """Returns the totals over no example."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(4)))

    @classmethod
    def of(cls, losses: jax.Array, logits: jax.Array, labels: jax.Array) -> "Sums":
        """Returns the totals over a batch.

        Ties and NaN count against the network: constant logits score 0%, not 100%.

        Args:
            losses: float32 `[B]`.
            logits: `[B, K]`.
            labels: int `[B]`; a negative one marks padding, which counts nowhere.
        """
        real = labels >= 0
        index = jnp.maximum(labels, 0)[:, None]
        label_logits = jnp.take_along_axis(logits, index, axis=1)  # [B, 1]
        rank = jnp.sum(~(logits < label_logits), axis=1)  # 1 is the first guess
        return cls(
            count=jnp.sum(real, dtype=jnp.float32),
            loss=jnp.sum(jnp.where(real, losses, 0.0)),
            top1=jnp.sum(real & (rank <= 1), dtype=jnp.float32),
            top5=jnp.sum(real & (rank <= 5), dtype=jnp.float32),
        )

    def __add__(self, other: "Sums") -> "Sums":
        return jax.tree.map(jnp.add, self, other)

    def means(self) -> dict[str, float]:
        """Returns the means over the examples; those over no example are 0.

        Returns:
            `loss` in the unit of the losses; `accuracy` and `top5` in [0, 1].
        """
        count, loss, top1, top5 = (float(x) for x in jax.tree.leaves(self))
        n = max(count, 1.0)
        return {"loss": loss / n, "accuracy": top1 / n, "top5": top5 / n}


def cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Returns the cross-entropy of each example, in nats.

    Args:
        logits: float `[B, K]`.
        labels: int `[B]`.
        smoothing: label smoothing in [0, 1): this share of the target is spread evenly
            over the K classes.

    Returns:
        float32 `[B]`.

    >>> loss = cross_entropy(jnp.zeros((1, 10)), jnp.array([3]))
    >>> loss.shape, round(loss.item(), 3)  # log 10
    ((1,), 2.303)
    """
    # `optax.softmax_cross_entropy`, with bfloat16 logits promoted explicitly.
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    log_probabilities = jax.nn.log_softmax(logits).astype(jnp.float32)
    return -(optax.smooth_labels(targets, smoothing) * log_probabilities).sum(-1)


def confusion(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Counts how many examples of each class were taken for which class.

    Args:
        logits: `[B, K]`.
        labels: int `[B]`; examples with a negative one (padding) are left out.

    Returns:
        int32 `[K, K]`: one row per true class, one column per guessed class.

    >>> logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]])
    >>> confusion(logits, jnp.array([0, 0, 1])).tolist()
    [[1, 1], [1, 0]]
    """
    classes = logits.shape[-1]
    guess = jnp.argmax(logits, axis=-1)
    row = jnp.where(labels >= 0, labels, classes)  # out of range: dropped
    return jnp.zeros((classes, classes), jnp.int32).at[row, guess].add(1, mode="drop")


def per_class(matrix: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Returns the accuracy of each class, in [0, 1]; classes not seen are left out.

    Args:
        matrix: `[K, K]`, as `confusion` returns it.
        names: of the K classes, in the order of their labels.

    >>> per_class(np.array([[1, 1, 0], [0, 4, 0], [0, 0, 0]]), ("cat", "dog", "frog"))
    {'cat': 0.5, 'dog': 1.0}
    """
    totals = matrix.sum(axis=1)
    return {
        name: float(matrix[i, i] / totals[i])
        for i, name in enumerate(names)
        if totals[i]
    }
