"""Probabilities against NumPy in float64, and the program that they are part of."""

import jax
import numpy as np

from vgg_jax.nn.softmax import softmax


def test_they_are_what_numpy_finds():
    logits = np.random.default_rng(0).normal(0, 30, (4, 10)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64))
    want = exact / exact.sum(1, keepdims=True)
    got = softmax(jax.numpy.asarray(logits))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)


def test_the_program_holds_no_call_that_cannot_be_kept():
    """Of oneDNN; fails with `jax.nn.softmax` on a CPU that has bfloat16."""
    logits = np.zeros((4, 10), np.float32)
    compiled = jax.jit(softmax).lower(logits).compile()
    assert "custom-call" not in compiled.as_text()
