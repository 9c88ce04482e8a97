"""The networks against the paper's Table 1 and its arithmetic.

FACTS: docs/facts.md section 2, arithmetic on Table 1 of arXiv:1409.1556v6; A,
B, D and E at 1000 classes are also what torchvision and Keras publish (11/13/16/19).
"""

import math
import re
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.nn import architecture, initializers
from vgg_jax.nn.architecture import CONFIGURATIONS
from vgg_jax.nn.lrn import local_response_norm
from vgg_jax.nn.vgg import VGG

# FACTS: parameters with 1000 classes at 224 px, 10 classes at 224 px, the compact head
# with 10 classes; what batch norm adds; receptive field of the last conv and of pool5.
TABLE = {
    "A": (132_863_336, 128_807_306, 9_225_610, 5_504, "conv5_2", 134, 150),
    "A-LRN": (132_863_336, 128_807_306, 9_225_610, 5_504, "conv5_2", 134, 150),
    "B": (133_047_848, 128_991_818, 9_410_122, 5_888, "conv5_2", 140, 156),
    "C": (133_638_952, 129_582_922, 10_001_226, 8_448, "conv5_3", 140, 156),
    "D": (138_357_544, 134_301_514, 14_719_818, 8_448, "conv5_3", 196, 212),
    "E": (143_667_240, 139_611_210, 20_029_514, 11_008, "conv5_4", 252, 268),
}
D_LAYERS = (
    "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv4_1 conv4_2 conv4_3 "
    "conv5_1 conv5_2 conv5_3 fc6 fc7 fc8"
).split()
variants = pytest.mark.parametrize("variant", TABLE)


def shapes(size=32, batch=1, **options):
    """Shapes of the variables: nothing is allocated."""
    model = VGG(conv="lax", **options)  # the same shapes, traced faster
    x = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return {k: v for k, v in variables.items() if k != "intermediates"}


def activation_shapes(size=32, batch=1, **options):
    """Shapes of the logits and of what is kept."""
    model = VGG(conv="lax", **options)
    x = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    apply = partial(model.apply, mutable=["intermediates"])
    logits, kept = jax.eval_shape(apply, shapes(size, batch, **options), x)
    return logits, {
        name: value for name, (value,) in kept["intermediates"]["activations"].items()
    }


def count(**options):
    leaves = jax.tree.leaves(shapes(**options)["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)


def activations(model, variables, x, **options):
    """What is kept of one pass, and whatever else changes."""
    mutable = ["intermediates", "batch_stats"]
    run = jax.jit(lambda v, x: model.apply(v, x, mutable=mutable, **options)[1])
    new = dict(run(variables, x))
    return {
        name: v for name, (v,) in new.pop("intermediates")["activations"].items()
    }, new


@cache
def small(variant, size=32, **options):
    """A thin network with random weights and biases, and images for it."""
    options |= {"num_classes": 10, "width": 1 / 32, "hidden": (20, 24)}
    numbers = np.random.default_rng(1)

    def fill(a):  # He's scale keeps the activations near one
        scale = math.sqrt(2 / math.prod(a.shape[:-1])) if len(a.shape) > 1 else 0.3
        return np.float32(scale * numbers.normal(size=a.shape))

    variables = jax.tree.map(fill, shapes(variant=variant, size=size, **options))
    x = numbers.normal(size=(2, size, size, 3)).astype(np.float32)
    return VGG(variant, **options), variables, x


def test_no_configuration_is_left_out():
    assert list(CONFIGURATIONS) == list(TABLE)


@variants
def test_parameter_counts(variant):
    imagenet, cifar_224, compact, batch_norm, *_ = TABLE[variant]
    assert count(variant=variant, size=224) == imagenet
    assert count(variant=variant, size=224, num_classes=10) == cifar_224
    head = {"variant": variant, "num_classes": 10, "head": "compact"}
    assert count(**head) == compact
    assert count(**head, batch_norm=True) == compact + batch_norm


@pytest.mark.parametrize("variant, total", [("A", 28_149_514), ("D", 33_646_666)])
def test_parameter_count_of_the_paper_head_at_32_px(variant, total):
    """FACTS, below the table."""
    assert count(variant=variant, num_classes=10, batch_norm=True) == total


@variants
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_and_parameters_are_float32(variant, dtype):
    options = {"variant": variant, "num_classes": 7, "dtype": dtype}
    variables = shapes(**options, batch_norm=True)
    logits, kept = activation_shapes(batch=3, **options, batch_norm=True)
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert {kept[name].dtype for name in ("relu1_1", "fc7")} == {jnp.dtype(dtype)}


def test_layers_have_the_names_of_the_paper():
    assert set(shapes(variant="D")["params"]) == set(D_LAYERS)
    names = set(shapes(variant="D", head="compact", batch_norm=True)["params"])
    convs = {name for name in D_LAYERS if name.startswith("conv")}
    assert names == convs | {c.replace("conv", "bn") for c in convs} | {"fc8"}


def test_activations_are_kept_by_name():
    kept = activation_shapes(variant="D", size=224, batch=2)[1]
    assert kept["relu4_3"].shape == (2, 28, 28, 512)  # 224 halved three times
    assert kept["pool4"].shape == (2, 14, 14, 512)
    assert kept["fc7"].shape == kept["relu7"].shape == (2, 4096)
    stages = {f"pool{s}" for s in range(1, 6)}
    relus = {"relu" + name.lstrip("convf") for name in D_LAYERS[:-1]}
    assert set(kept) == set(D_LAYERS) | stages | relus


@variants
def test_receptive_field(variant):
    """Every pixel of the field, and no other, moves the unit (all weights positive)."""
    *_, last, conv_field, pool_field = TABLE[variant]
    one_channel = re.sub(r"-\d+", "-1", architecture.CONFIGURATIONS[variant])
    model = VGG(one_channel, 1, head="compact", pool="average", conv="lax")
    x = jnp.ones((1, 320, 320, 3))
    positive = jax.tree.map(
        lambda a: jnp.full(a.shape, 1 / math.prod(a.shape[:-1])),
        jax.eval_shape(model.init, jax.random.key(0), x)["params"],
    )

    def centres(x):
        kept = model.apply({"params": positive}, x, mutable=["intermediates"])[1]
        maps = [
            kept["intermediates"]["activations"][name][0] for name in (last, "pool5")
        ]
        return [a[0, a.shape[1] // 2, a.shape[2] // 2, 0] for a in maps]

    gradients = jax.jit(jax.jacrev(centres))(x)
    for gradient, field in zip(gradients, (conv_field, pool_field), strict=True):
        seen = np.asarray(gradient[0, :, :, 0]) != 0
        assert not (seen[0] | seen[-1] | seen[:, 0] | seen[:, -1]).any()  # not clipped
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == field
        assert seen.sum() == field**2


def test_forward_pass_equals_numpy():
    """C, written out as in FACTS; 64 px, so that the flattened map is 2x2."""
    model, variables, x = small("C", size=64)
    got = jax.jit(model.apply)(variables, x)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    table = "64 64 M 128 128 M 256 256 1 M 512 512 1 M 512 512 1 M"
    y, stage, i = np.asarray(x, np.float64), 1, 0
    for entry in table.split():
        if entry == "M":
            batch, height, width, channels = y.shape
            y = y.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
            stage, i = stage + 1, 0
            continue
        i += 1
        layer = params[f"conv{stage}_{i}"]
        kernel = 1 if entry == "1" else 3
        padded = np.pad(y, ((0, 0), *((kernel // 2, kernel // 2),) * 2, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, (kernel, kernel), (1, 2)
        )
        y = np.einsum("bhwcij,ijck->bhwk", windows, layer["kernel"], optimize=True)
        y = np.maximum(y + layer["bias"], 0)
    y = y.reshape(2, -1)
    for name in ("fc6", "fc7", "fc8"):
        y = y @ params[name]["kernel"] + params[name]["bias"]
        y = y if name == "fc8" else np.maximum(y, 0)
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


def test_local_response_norm_equals_a_loop():
    """Krizhevsky et al. (2012): k=2, n=5, alpha=1e-4 (not divided by n), beta=0.75."""
    x = 50 * np.random.default_rng(0).normal(size=(2, 3, 4, 9))
    want = np.empty_like(x)
    for c in range(9):
        near = x[..., max(0, c - 2) : c + 3]
        want[..., c] = x[..., c] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    got = local_response_norm(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_lrn_is_a_with_the_norm_after_the_first_relu():
    assert shapes(variant="A-LRN", size=224) == shapes(variant="A", size=224)
    model, variables, x = small("A-LRN")
    kept, _ = activations(model, variables, 50 * x)
    normed = np.asarray(local_response_norm(kept["relu1_1"]))
    pooled = normed.reshape(2, 16, 2, 16, 2, 2).max((2, 4))
    np.testing.assert_allclose(kept["pool1"], pooled, rtol=1e-6)


def test_average_pooling():
    model, variables, x = small("A", pool="average")
    kept, _ = activations(model, variables, x)
    pooled = np.asarray(kept["relu1_1"]).reshape(2, 16, 2, 16, 2, 2).mean((2, 4))
    np.testing.assert_allclose(kept["pool1"], pooled, rtol=1e-5, atol=1e-6)


def test_batch_statistics():
    """Normalised before the ReLU; a step moves the running mean a tenth of the way.

    The tenth: torch's momentum 0.1 (FACTS section 3).
    """
    model, variables, x = small("A", batch_norm=True)
    rngs = {"dropout": jax.random.key(0)}
    kept, new = activations(model, variables, x, train=True, rngs=rngs)
    conv = np.asarray(kept["conv1_1"], np.float64)
    old, mean = (v["batch_stats"]["bn1_1"]["mean"] for v in (variables, new))
    want = 0.9 * old + 0.1 * conv.mean((0, 1, 2))
    np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-6)
    bn = variables["params"]["bn1_1"]
    normed = (conv - conv.mean((0, 1, 2))) / np.sqrt(conv.var((0, 1, 2)) + 1e-5)
    want = np.maximum(normed * bn["scale"] + bn["bias"], 0)
    np.testing.assert_allclose(kept["relu1_1"], want, rtol=1e-3, atol=1e-4)


def test_width_multiplies_the_channels_of_convolutions():
    params = shapes(variant="D", width=0.375)["params"]
    kernels = [params[name]["kernel"].shape for name in D_LAYERS]
    assert kernels[0] == (3, 3, 3, 24) and kernels[4] == (3, 3, 48, 96)
    assert kernels[-4] == (3, 3, 192, 192) and kernels[-3] == (192, 4096)
    thin = shapes(variant="D", width=1 / 64)["params"]
    assert thin["conv1_2"]["kernel"].shape == (3, 3, 1, 1)
    with pytest.raises(ConfigError, match="no channel of conv3-64.* above 0.0078125"):
        VGG("D", width=1 / 128)
    VGG("D", width=0.0079)


@pytest.mark.parametrize(
    "hidden, dense",
    [
        ((64, 32), {"fc6": (2048, 64), "fc7": (64, 32), "fc8": (32, 10)}),
        ((64,), {"fc7": (2048, 64), "fc8": (64, 10)}),
        ((), {"fc8": (2048, 10)}),
    ],
)
def test_hidden_layers(hidden, dense):  # 64 px leave 2 x 2 x 512 = 2048 values
    params = shapes(size=64, num_classes=10, hidden=hidden)["params"]
    got = {k: v["kernel"].shape for k, v in params.items() if k.startswith("fc")}
    assert got == dense


def test_dropout_is_random_in_training_only():
    model, variables, x = small("A", dropout=0.5)
    apply = jax.jit(model.apply, static_argnames="train")

    def logits(key, train):
        rngs = {"dropout": jax.random.key(key)}
        return np.asarray(apply(variables, x, train=train, rngs=rngs))

    assert (logits(0, True) == logits(0, True)).all()
    assert (logits(0, True) != logits(1, True)).any()
    assert (logits(0, True) != logits(0, False)).any()
    assert (logits(0, False) == logits(1, False)).all()


def test_dropout_rate():
    """fc7 gives ones and fc8 copies, so the logits are the mask, scaled up."""
    model = VGG("A", 1000, 1 / 64, hidden=(1000,), dropout=0.25)
    x = jnp.ones((4, 32, 32, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda a: jnp.zeros(a.shape), params)
    params["fc7"]["bias"] += 1
    params["fc8"]["kernel"] = jnp.eye(1000)
    apply = jax.jit(model.apply, static_argnames="train")
    y = apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(0)})
    y = np.asarray(y)
    dropped = y == 0
    assert abs(dropped.mean() - 0.25) < 0.03  # 4 standard deviations of 4,000 coins
    np.testing.assert_allclose(y[~dropped], 1 / 0.75, rtol=1e-6)


# Standard deviations of the conv3_1 kernel [3, 3, 64, 128] (fan in 576, fan out 1152)
# and of the fc7 kernel [256, 128]: the published formulas, FACTS section 3.
@pytest.mark.parametrize(
    "name, conv, dense",
    [
        ("he", math.sqrt(2 / 576), math.sqrt(2 / 256)),
        ("glorot_uniform", math.sqrt(2 / (576 + 1152)), math.sqrt(2 / (256 + 128))),
        ("lecun", math.sqrt(1 / 576), math.sqrt(1 / 256)),
        ("torchvision", math.sqrt(2 / 1152), 0.01),
        ("paper", 0.1, 0.1),  # variance 1e-2
    ],
)
def test_initialisers(name, conv, dense):
    model = VGG("A", 10, 0.5, hidden=(128,), kernel_init=name, conv="lax")

    @jax.jit
    def init(key):
        params = model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        return params["conv3_1"], params["fc7"]

    layers = init(jax.random.key(0))
    wanted = [((3, 3, 64, 128), conv), ((256, 128), dense)]
    for layer, (shape, std) in zip(layers, wanted, strict=True):
        kernel = np.asarray(layer["kernel"])
        assert kernel.shape == shape
        assert kernel.std() == pytest.approx(std, rel=0.02)
        assert abs(kernel.mean()) < 0.03 * std
        if name == "glorot_uniform":  # the limit sqrt(6 / (fan in + fan out))
            limit = math.sqrt(3) * std
            assert 0.99 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
        else:  # a uniform distribution ends at 1.73 standard deviations
            assert np.abs(kernel).max() > 2 * std
        assert not layer["bias"].any()


@pytest.mark.parametrize("height, width", [(31, 224), (224, 16)])
def test_too_small_an_image(height, width):
    x = jnp.zeros((1, height, width, 3))
    with pytest.raises(ConfigError, match=rf"{height}x{width}.* 32x32"):
        jax.eval_shape(VGG("A").init, jax.random.key(0), x)


def test_channels_first_is_told():
    """As other libraries lay images out: [B, C, H, W]."""
    x = jnp.zeros((1, 3, 64, 64))
    with pytest.raises(ConfigError, match=r"\[B, 3, 64, 64\].*NHWC.*transpose"):
        jax.eval_shape(VGG("A").init, jax.random.key(0), x)


@pytest.mark.parametrize(
    "option, known",
    [
        ("variant", ["A", "A-LRN", "B", "C", "D", "E"]),
        ("head", ["paper", "compact"]),
        ("pool", ["max", "average"]),
        ("kernel_init", ["he", "glorot_uniform", "lecun", "torchvision", "paper"]),
    ],
)
def test_unknown_names(option, known):
    """When the network is made, not when it first runs."""
    with pytest.raises(ConfigError) as error:
        VGG(**{option: "F"})
    message = str(error.value)
    assert isinstance(error.value, ValueError)
    assert message.startswith(f"{option}='F'")  # no config, no flag is spoken of
    assert all(name in message.split(":")[-1] for name in known)


@pytest.mark.parametrize(
    "options",
    [{"dtype": "float23"}, {"dtype": "int8"}, {"variant": 5}, {"num_classes": 0}]
    + [{"width": 0}, {"dropout": 1.0}, {"hidden": (0,)}],
)
def test_a_value_that_cannot_be_is_told_at_once(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=re.escape(f"{name}={value!r} ")):
        VGG(**options)


def test_a_table_of_ones_own():
    assert architecture.stages("conv3-8 conv5-16 | conv1-4 |") == [
        ["conv3-8", "conv5-16"],
        ["conv1-4"],
    ]


@pytest.mark.parametrize(
    "table, said",
    [
        ("conv3-8 conv4-8 |", "'conv4-8' is no layer"),
        ("conv3-8, |", "'conv3-8,' is no layer"),
        ("conv3-8 | conv3-8", "ends with a pool"),
        ("conv3-8 | | conv3-8 |", "every stage has a layer"),
        ("F", "F"),
    ],
)
def test_a_wrong_table_is_told(table, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        architecture.stages(table)


def test_identity_kernels_pass_their_input_on():
    init = initializers.INITIALIZERS["identity"][0]
    w = init(jax.random.key(0), (3, 3, 4, 6))
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    y = jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_array_equal(y[..., :4], x)
    # The rest is torch.nn.Conv2d's default: uniform in +-1 / sqrt(fan in).
    rest = np.abs(w[..., 4:])
    assert 0.8 < rest.max() * 6 <= 1 and rest.std() > 0


def test_pooled_early():
    """By hand: maximum of each window, then batch norm, then ReLU."""
    model, variables, x = small(
        "conv3-96 conv3-96 | conv3-96 |", batch_norm=True, pool_early=True
    )
    kept, _ = activations(model, variables, x)
    conv = np.asarray(kept["conv1_2"], np.float64)
    batch, height, width, channels = conv.shape
    windows = conv.reshape(batch, height // 2, 2, width // 2, 2, channels)
    pooled = windows.max((2, 4))
    np.testing.assert_allclose(kept["pool1"], pooled, rtol=1e-6)
    running, bn = (
        {name: np.asarray(v) for name, v in variables[kind]["bn1_2"].items()}
        for kind in ("batch_stats", "params")
    )
    z = (pooled - running["mean"]) / np.sqrt(running["var"] + 1e-5)
    z = z * bn["scale"] + bn["bias"]
    relu = np.maximum(z, 0)
    np.testing.assert_allclose(kept["relu1_2"], relu, rtol=1e-4, atol=1e-5)
    assert kept["relu1_1"].shape[1:3] == x.shape[1:3]


@pytest.mark.parametrize("head", ["paper", "compact"])
def test_no_images(head):
    logits, _ = activation_shapes(batch=0, variant="A", head=head, num_classes=7)
    assert logits.shape == (0, 7)


def test_lists_are_taken_and_hashable():
    """As a static argument of `jax.jit` is."""
    model = VGG("conv1-1 |", 3, hidden=[8], frozen=["fc*"])
    assert hash(model) == hash(VGG("conv1-1 |", 3, hidden=(8,), frozen=("fc*",)))


def test_a_size_is_height_and_width():
    size: Any = 224
    with pytest.raises(ConfigError, match=r"size=224 .* \(224, 224\)"):
        architecture.layers("D", size=size)


# torch.nn.AdaptiveAvgPool2d(7) of torch 2.13 on arange(length): mean of each window.
ADAPTIVE = {
    1: [0, 0, 0, 0, 0, 0, 0],
    5: [0, 0.5, 1.5, 2, 2.5, 3.5, 4],
    6: [0, 0.5, 1.5, 2.5, 3.5, 4.5, 5],
    7: [0, 1, 2, 3, 4, 5, 6],
    10: [0.5, 1.5, 3, 4.5, 6, 7.5, 8.5],
    14: [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5],
}


@pytest.mark.parametrize("length", ADAPTIVE)
def test_the_adaptive_head_averages_as_torchvision_does(length):
    spec = architecture.layers("conv1-1 |", size=(2 * length, 28), head="adaptive")[3]
    assert spec.kind == "adaptive_average" and spec.size == (7, 7)
    model = VGG("conv1-1 |", 3, hidden=(), head="adaptive", conv="lax")
    x = jnp.repeat(jnp.arange(length, dtype=jnp.float32), 2)[None, :, None, None]
    x = jnp.broadcast_to(x, (1, 2 * length, 28, 1))
    kernel = jnp.zeros((49, 3)).at[jnp.array([0, 21, 42]), jnp.arange(3)].set(1.0)
    params = {
        "conv1_1": {"kernel": jnp.ones((1, 1, 1, 1)), "bias": jnp.zeros(1)},
        "fc8": {"kernel": kernel, "bias": jnp.zeros(3)},
    }
    logits = model.apply({"params": params}, x)  # rows 0, 3 and 6 of the map
    assert logits[0].tolist() == [ADAPTIVE[length][row] for row in (0, 3, 6)]


def test_the_adaptive_head_is_the_papers_at_224_pixels():
    paper, adaptive = (shapes(224, head=head) for head in ("paper", "adaptive"))
    assert jax.tree.map(lambda a: a.shape, paper) == jax.tree.map(
        lambda a: a.shape, adaptive
    )
    assert shapes(32, head="adaptive") == adaptive


def test_a_network_stops_at_a_layer_and_needs_no_later_parameters():
    model = VGG("conv3-4 | conv3-4 |", 3, hidden=(), conv="lax")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = model.init(jax.random.key(1), x)
    sown, _ = activations(model, variables, x)
    params = {"conv1_1": variables["params"]["conv1_1"]}
    found = model.apply({"params": params}, x, last="relu1_1")
    np.testing.assert_allclose(found, sown["relu1_1"], rtol=1e-6)
    with pytest.raises(ConfigError, match="last='relu9_9' is unknown"):
        model.apply(variables, x, last="relu9_9")
