"""The table of layers against the numbers of the paper's networks (docs/facts.md)."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.memory import planned
from vgg_jax import machine
from vgg_jax.nn import cost
from vgg_jax.nn.architecture import CONFIGURATIONS
from vgg_jax.nn.vgg import REMAT, VGG

# docs/facts.md section 2: parameters and GMAC at 224 px, 1000 classes; MMAC at 32 px
# with a 512 -> 10 head; receptive field of the last convolution and of pool5.
FACTS = {
    "A": (132_863_336, 7.609, 152.77, 134, 150),
    "B": (133_047_848, 11.308, 228.27, 140, 156),
    "C": (133_638_952, 11.771, 237.70, 140, 156),
    "D": (138_357_544, 15.470, 313.20, 196, 212),
    "E": (143_667_240, 19.632, 398.14, 252, 268),
}


def table(variant="D", size=224, **options):
    model = VGG(variant, **options)
    return cost.costs(model.layers((size, size)), norm_scale=model.norm_scale)


@pytest.mark.parametrize("variant", FACTS)
def test_totals_and_receptive_fields(variant):
    params, gmac, mmac, last, pool5 = FACTS[variant]
    total = cost.total(table(variant))
    assert (total.params, round(total.macs / 1e9, 3)) == (params, gmac)
    rows = table(variant, size=32, head="compact", num_classes=10)
    assert round(cost.total(rows).macs / 1e6, 2) == mmac
    field = {row.name: row.receptive_field for row in rows}
    convolutions = [name for name in field if name.startswith("conv")]
    assert (field[convolutions[-1]], field["pool5"]) == (last, pool5)


def test_the_head_sees_the_whole_image():
    """By hand: pool5 of D at 224 px is 7 x 7, its outputs 212 pixels wide, 32 apart."""
    rows = {row.name: row for row in table("D")}
    assert rows["pool5"].stride == 32 and rows["pool5"].shape == (7, 7, 512)
    assert rows["fc6"].receptive_field == 212 + 6 * 32
    assert rows["fc8"].stride == 7 * 32


@pytest.mark.parametrize("pool_early", [False, True])
def test_whitening_has_no_norm_and_norms_may_have_no_scale(pool_early):
    """By hand: 27 * 54 + 54; 9 * 54 * 8 + 8, and 8 of the norm; 8 * 10 + 10."""
    rows = table(
        "conv3-54 conv3-8 |",
        size=8,
        batch_norm=True,
        norm_scale=False,
        whiten=True,
        head="compact",
        num_classes=10,
        pool_early=pool_early,
    )
    assert [row.params for row in rows] == [1512, 3888 + 16, 0, 90]


@pytest.mark.parametrize("variant", CONFIGURATIONS)
@pytest.mark.parametrize("head, batch_norm", [("paper", False), ("compact", True)])
def test_rows_equal_the_network(variant, head, batch_norm):
    """Names, shapes and parameters as Flax itself counts them."""
    options = {"width": 0.25, "batch_norm": batch_norm, "head": head}
    model = VGG(variant, num_classes=10, **options)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    _, kept = jax.eval_shape(
        lambda x: model.init_with_output(
            jax.random.key(0), x, mutable=["params", "batch_stats", "intermediates"]
        ),
        x,
    )
    rows = table(variant, size=64, num_classes=10, **options)
    shapes = {
        k: v[0].shape[1:] for k, v in kept["intermediates"]["activations"].items()
    }
    for row in rows:
        assert shapes[row.name] == row.shape
    count = sum(leaf.size for leaf in jax.tree.leaves(kept["params"]))
    assert cost.total(rows).params == count


@pytest.mark.parametrize("variant", CONFIGURATIONS)
@pytest.mark.parametrize("pool_early", [False, True])
def test_specs_equal_the_network(variant, pool_early):
    """Shapes and kernels of every layer, as the module runs them."""
    model = VGG(variant, 10, 0.125, batch_norm=True, pool_early=pool_early)
    x = jax.ShapeDtypeStruct((2, 64, 96, 1), jnp.float32)
    init = lambda x: model.init(
        jax.random.key(0), x, mutable=["params", "batch_stats", "intermediates"]
    )
    kept = jax.eval_shape(init, x)
    kept, params = kept["intermediates"]["activations"], kept["params"]
    specs = {spec.name: spec for spec in model.layers((64, 96), inputs=1)}
    unnamed = {"flatten", "dropout6", "dropout7"}
    assert set(kept) == set(specs) - unnamed
    for name, (value,) in kept.items():
        spec = specs[name]
        size = spec.size if value.ndim == 4 else ()
        assert value.shape == (2, *size, spec.channels)
        if spec.kind == "conv":
            shape = (spec.kernel, spec.kernel, spec.inputs, spec.channels)
            assert params[name]["kernel"].shape == shape
        if spec.kind == "dense":
            assert params[name]["kernel"].shape == (spec.inputs, spec.channels)


@pytest.mark.parametrize(
    "pool_early, names",
    [
        (False, "conv1_1 bn1_1 relu1_1 lrn1 pool1 conv2_1 bn2_1 relu2_1 pool2"),
        (True, "conv1_1 bn1_1 relu1_1 lrn1 pool1 conv2_1 pool2 bn2_1 relu2_1"),
    ],
)
def test_the_order_of_the_layers(pool_early, names):
    """Written down from the definition: LRN closes stage 1, so its pool stays last."""
    model = VGG(
        "conv3-8 LRN | conv3-8 |", 10, batch_norm=True, hidden=(4,), dropout=0.5,
        pool_early=pool_early,
    )  # fmt: skip
    head = "flatten fc7 relu7 dropout7 fc8"
    assert [s.name for s in model.layers((8, 8))] == f"{names} {head}".split()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_what_training_keeps(batch_norm):
    """By hand: 8 x 8 x 4 after ReLU, 4 x 4 x 4 pooled, 2; batch norm's input too."""
    options = {"head": "compact", "num_classes": 2}
    rows = table("conv3-4 |", 8, batch_norm=batch_norm, **options)
    assert [row.kept for row in rows] == [256 * (1 + batch_norm), 64, 2]


@pytest.mark.usefixtures("cpu")
@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("remat", REMAT)
def test_the_estimate_of_memory_is_near_the_plan(batch_norm, remat):
    """XLA's own plan for the compiled step; the network had no part in the fit."""
    model = VGG("A", 10, head="compact", width=0.5, batch_norm=batch_norm, remat=remat)
    rows = cost.costs(model.layers((64, 64)))
    kind = {"batch_size": 128, "dtype": "float32", "remat": remat}
    kind["fused"] = machine.prefers_kernels("float32")
    said = sum(cost.training_bytes(rows, **kind))
    assert said == pytest.approx(planned(model, 64, 128), rel=0.15)


def test_what_a_stage_computed_again_keeps():
    """By hand: the most is stage 1, 8 x 8 x 4 twice and pooled."""
    rows = table("conv3-4 conv3-4 | conv3-8 |", 8, head="compact", num_classes=2)
    value = 4  # bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_WORK", {"float32": cost._Work(0, 0, 0, 0)})
        patch.setattr(cost, "_STAGE_WORK", {"float32": cost._StageWork(0, 0, 0, 0, 0)})
        took = [
            cost.training_bytes(rows, batch_size=1, dtype="float32", remat=remat)[1]
            for remat in ("none", "stage")
        ]
    assert took == [value * (512 + 64 + 128 + 32 + 2), value * (512 + 64)]


@pytest.mark.slow
@pytest.mark.usefixtures("cpu")
def test_a_stage_computed_again_takes_less_memory():
    """XLA's own plans. Of equal stages all but one are left out."""
    model = VGG("conv1-32 conv1-32 conv1-32 | " + "conv1-128 " * 9 + "|", 10)
    model = model.clone(head="compact", remat="none")
    whole, staged = (planned(model.clone(remat=r), 64, 64) for r in ("none", "stage"))
    assert staged < 0.8 * whole


@pytest.mark.usefixtures("cpu")
def test_each_activation_is_kept_once():
    """Large activations dominate: the plan exceeds them by less than a half.

    With ReLU's input kept beside its output, and copies of whole batches, it was 3.5
    times as much.
    """
    model = VGG("conv3-32 " * 8 + "|", 10, head="compact")
    rows = cost.costs(model.layers((128, 128)))
    kept = 4 * 64 * sum(row.kept for row in rows)
    assert kept < planned(model, 128, 64) < 1.5 * kept
