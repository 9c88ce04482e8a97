"""The table of layers against the numbers of the paper's networks (facts.md)."""

import jax
import jax.numpy as jnp
import pytest

from vgg_jax.nn import cost as layers
from vgg_jax.nn.vgg import CONFIGURATIONS, VGG

# facts.md section 2: parameters and GMAC at 224 px, 1000 classes; MMAC at 32 px with a
# 512 -> 10 head; receptive field of the last convolution and of pool5.
FACTS = {
    "A": (132_863_336, 7.609, 152.77, 134, 150),
    "B": (133_047_848, 11.308, 228.27, 140, 156),
    "C": (133_638_952, 11.771, 237.70, 140, 156),
    "D": (138_357_544, 15.470, 313.20, 196, 212),
    "E": (143_667_240, 19.632, 398.14, 252, 268),
}


@pytest.mark.parametrize("variant", FACTS)
def test_totals_and_receptive_fields(variant):
    params, gmac, mmac, last, pool5 = FACTS[variant]
    total = layers.total(layers.table(variant))
    assert (total.params, round(total.macs / 1e9, 3)) == (params, gmac)
    rows = layers.table(variant, size=32, head="compact", classes=10)
    assert round(layers.total(rows).macs / 1e6, 2) == mmac
    field = {row.name: row.receptive_field for row in rows}
    convolutions = [name for name in field if name.startswith("conv")]
    assert (field[convolutions[-1]], field["pool5"]) == (last, pool5)


def test_whitening_has_no_norm_and_norms_may_have_no_scale():
    """By hand: 27 * 54 + 54; 9 * 54 * 8 + 8, and 8 of the norm; 8 * 10 + 10."""
    rows = layers.table(
        "conv3-54 conv3-8 |",
        size=8,
        batch_norm=True,
        norm_scale=False,
        whiten=True,
        head="compact",
        classes=10,
    )
    assert [row.params for row in rows] == [1512, 3888 + 16, 0, 90]


@pytest.mark.parametrize("variant", CONFIGURATIONS)
@pytest.mark.parametrize("head, batch_norm", [("paper", False), ("compact", True)])
def test_rows_equal_the_network(variant, head, batch_norm):
    """Names, shapes and parameters as Flax itself counts them."""
    model = VGG(variant, num_classes=10, width=0.25, batch_norm=batch_norm, head=head)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    _, kept = jax.eval_shape(
        lambda x: model.init_with_output(
            jax.random.key(0), x, mutable=["params", "batch_stats", "intermediates"]
        ),
        x,
    )
    rows = layers.table(
        variant, size=64, width=0.25, batch_norm=batch_norm, head=head, classes=10
    )
    shapes = {
        k: v[0].shape[1:] for k, v in kept["intermediates"]["activations"].items()
    }
    for row in rows:
        if not row.name.startswith("lrn"):
            assert shapes[row.name] == row.shape
    count = sum(leaf.size for leaf in jax.tree.leaves(kept["params"]))
    assert layers.total(rows).params == count
