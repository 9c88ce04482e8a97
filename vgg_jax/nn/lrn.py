"""Local response normalisation, which only configuration A-LRN has."""

import jax
import jax.numpy as jnp


def local_response_norm(
    x: jax.Array, *, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """Returns `x / (k + alpha * sum(x^2))^beta`, computed in float32.

    Krizhevsky et al. (2012), section 3.3, whose constants are the defaults. The sum is
    not divided by n: that is TensorFlow's convention; PyTorch and Caffe divide, so
    their alpha is n times this one.

    Args:
        x: `[B, H, W, C]`, float32 or bfloat16.
        n: number of neighbouring channels that the sum runs over, odd; those beyond the
            first and the last channel count as zero.
        k: added to the sum.
        alpha: multiplies the sum.
        beta: exponent.

    Returns:
        `[B, H, W, C]` in the dtype of `x`.

    >>> x = jnp.ones((1, 1, 1, 3))
    >>> y = local_response_norm(x, n=3, k=2.0, alpha=1.0, beta=1.0)
    >>> print(y.ravel())  # the middle channel has two neighbours
    [0.25 0.2  0.25]
    """
    squares = jnp.square(x.astype(jnp.float32))
    padded = jnp.pad(squares, ((0, 0), (0, 0), (0, 0), (n // 2, n // 2)))
    total = sum(padded[..., i : i + x.shape[-1]] for i in range(n))
    y = x.astype(jnp.float32) * (k + alpha * total) ** -beta
    return y.astype(x.dtype)
