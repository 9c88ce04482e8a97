"""Probabilities from logits, in programs that the next start finds compiled."""

import jax
import jax.numpy as jnp
import numpy as np


def softmax(logits: jax.Array) -> jax.Array:
    """Returns probabilities along the last axis, in the shape and type of the logits.

    `jax.nn.softmax`, spelled so that XLA:CPU does not hand it to oneDNN: jaxlib 0.12
    cannot serialise a program that holds such a call, and it would be compiled anew at
    every start (`backend.configure`).

    >>> softmax(jnp.array([[0.0, 0.0, -jnp.inf]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    return jnp.exp(jax.nn.log_softmax(logits))


def most_probable(probabilities: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Returns classes as number and probability, the best first; of equals, in order.

    Args:
        probabilities: floating point `[K]`.
        count: number of classes, K at most.

    >>> most_probable(np.float32([0.25, 0.5, 0.25]), 2)
    [(1, 0.5), (0, 0.25)]
    """
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(label), float(probabilities[label])) for label in best]
