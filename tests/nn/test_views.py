"""Views of an image, by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax import backend
from vgg_jax.nn.vgg import VGG
from vgg_jax.nn.views import VIEWS, averaged, views


def test_views_by_hand():
    """6 views: image and mirror image at 1/4, the four shifted ones at 1/8 each."""
    image = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    shown, weights = views(jnp.asarray(image), 6)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    up_left, down_right = padded[:, :4, :5], padded[:, 2:, 2:]
    want = [image, np.flip(image, 2), up_left, down_right]
    want += [np.flip(up_left, 2), np.flip(down_right, 2)]
    assert weights == [1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8]
    for got, expected in zip(shown, want, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [len(views(jnp.asarray(image), n)[0]) for n in VIEWS] == [
        1,
        2,
        6,
    ]
    assert views(jnp.asarray(image), 2)[1] == [1 / 2, 1 / 2]


def test_logits_in_bfloat16_are_numbers():
    """Those of this one were NaN where YNN added sums over pixels (`backend.py`)."""
    model = VGG("conv3-512 |", 10, head="compact", dtype="bfloat16", pool_early=True)
    images = np.random.default_rng(0).normal(size=(500, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    options = backend.compiler_options("bfloat16")
    shown = jax.jit(
        lambda v, x: averaged(partial(model.apply, v), x, 2), compiler_options=options
    )
    assert jnp.isfinite(shown(variables, images)).all()
