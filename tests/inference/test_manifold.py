"""Precision and recall against the definition, pair by pair."""

import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.inference import manifold
from vgg_jax.inference.manifold import precision_recall


def share_inside(points, centres, k):
    """Equation 1 of Kynkäänniemi et al. (2019), one pair at a time."""
    inside = 0
    radii = [
        sorted(np.linalg.norm(a - b) for j, b in enumerate(centres) if j != i)[k - 1]
        for i, a in enumerate(centres)
    ]
    for point in points:
        distances = [np.linalg.norm(point - centre) for centre in centres]
        inside += any(d <= r for d, r in zip(distances, radii, strict=True))
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3])
def test_it_is_the_definition(k, monkeypatch):
    monkeypatch.setattr(manifold, "_CHUNK", 7)
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(20, 4)), 1 + rng.normal(size=(17, 4))
    found = precision_recall(real, generated, neighbours=k)
    assert 0.1 < found.precision < 1 and 0.1 < found.recall < 1
    np.testing.assert_allclose(found.precision, share_inside(generated, real, k))
    np.testing.assert_allclose(found.recall, share_inside(real, generated, k))


def test_the_same_set_is_perfect_and_a_distant_one_worthless():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(20, 4))
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(3, 4), (20, 5), (20,)])
def test_tables_that_cannot_be_compared(shape):
    with pytest.raises(ConfigError, match="with more than neighbours=3 rows each"):
        precision_recall(np.zeros((20, 4)), np.zeros(shape))
