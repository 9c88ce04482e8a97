"""Weights prepared for inference, against the same weights as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from rich.console import Console

from configs import quickstart
from vgg_jax import machine
from vgg_jax.data.in_memory import Split
from vgg_jax.errors import ConfigError
from vgg_jax.evaluation import of_network
from vgg_jax.inference.predict import predictions
from vgg_jax.interop.network import random
from vgg_jax.interop.save import save
from vgg_jax.nn import by_xla, conv, vgg
from vgg_jax.nn.vgg import VGG, prepared
from vgg_jax.training import loop, score
from vgg_jax.training.localisation import Boxed, BoxRegression, fine_tune

# Maps of 8, 4 and 2 pixels: Winograd, and then Karatsuba in float32.
VARIANT = "conv3-64 conv3-96 | conv3-128 conv3-256 | conv1-32 conv3-64 |"
BATCH, SIZE = 128, 8
CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_2")  # of 3x3
# By type, and whether by kernels of our own, which keep one array for each.
KERNELS = {
    ("float32", True): dict.fromkeys(CONVOLUTIONS, 1),
    ("bfloat16", True): dict.fromkeys(CONVOLUTIONS, 1),
    ("float32", False): {"conv1_2": 36, "conv2_1": 36, "conv2_2": 36, "conv3_2": 9},
    ("bfloat16", False): {"conv2_2": 16},
}
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)))


def network(dtype="float32", **options):
    model = VGG(VARIANT, 5, head="compact", dtype=dtype, batch_norm=True, **options)
    return model, jax.jit(model.init)(jax.random.key(1), IMAGES)


def counted(model, variables, images=IMAGES):
    """How many matrix products and convolutions a call takes."""
    text = str(jax.make_jaxpr(model.apply)(variables, images))
    return text.count("dot_general["), text.count("conv_general_dilated[")


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request, kernels, monkeypatch):
    """Both types, bfloat16 by F(2x2) or kernels of our own, whatever the machine."""
    monkeypatch.setattr(machine, "cpu_kind", lambda: by_xla.F2_KINDS[0])
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


def check_same(model, variables, ready, of):
    """Bits in float32; in bfloat16 XLA need not round kernels within a program."""
    call = jax.jit(of(model.apply))
    found, plain = call(ready, IMAGES), call(vgg.cast(model, variables), IMAGES)
    if model.dtype == "float32":
        np.testing.assert_array_equal(found, plain)
        return
    exact = jax.jit(of(model.clone(dtype="float32").apply))(variables, IMAGES)
    error = lambda x: jnp.linalg.norm(x - exact)
    assert 0 < error(found) < 1.2 * error(plain)


def test_the_results_are_the_same(dtype, kernels):
    model, variables = network(dtype)
    ready = prepared(model, variables, (BATCH, SIZE, SIZE))
    made = {name: len(of["kernels"]) for name, of in ready[vgg.PREPARED].items()}
    assert made == KERNELS[dtype, kernels]
    check_same(model, variables, ready, lambda apply: apply)


@pytest.mark.parametrize(
    "kernels",
    [True, pytest.param(False, marks=pytest.mark.slow)],
    ids=["kernels", "XLA"],
    indirect=True,
)
def test_the_gradients_by_the_images_are_the_same(dtype):
    model, variables = network(dtype)
    ready = prepared(model, variables, (BATCH, SIZE, SIZE))
    by_images = lambda apply: jax.grad(lambda v, x: apply(v, x)[:, 1].sum(), argnums=1)
    check_same(model, variables, ready, by_images)


@pytest.mark.parametrize(
    "kernels",
    [True, pytest.param(False, marks=pytest.mark.slow)],
    ids=["kernels", "XLA"],
    indirect=True,
)
def test_each_of_them_is_used(dtype):
    model, variables = network(dtype)
    ready = prepared(model, variables, (BATCH, SIZE, SIZE))
    apply = jax.jit(model.apply)
    logits = apply(ready, IMAGES)
    for layer, made in ready[vgg.PREPARED].items():
        for one in (0, -1):
            kernels = list(made["kernels"])
            kernels[one] = kernels[one] + 1
            others = {**ready[vgg.PREPARED], layer: {"kernels": tuple(kernels)}}
            assert (apply({**ready, vgg.PREPARED: others}, IMAGES) != logits).any()


def test_kernels_are_no_longer_transformed(without_kernels):
    model, variables = network()
    ready = prepared(model, variables, (BATCH, SIZE, SIZE))
    products, convolutions = counted(model, variables)
    # Three layers of Winograd each transform their kernel by one product.
    assert counted(model, ready) == (products - 3, convolutions)


@pytest.mark.parametrize("shape", [(1, SIZE, SIZE), (3, 20, 12), (BATCH, 8, 16)])
def test_images_of_another_shape_are_right_too(shape, cpu):
    model, variables = network()
    ready = prepared(model, variables, (BATCH, SIZE, SIZE))
    images = jnp.asarray(np.random.default_rng(2).normal(size=(*shape, 3)))
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(
        apply(ready, images), apply(variables, images), rtol=1e-5, atol=1e-5
    )


def test_other_platforms_convolve_as_ever(cpu):
    model, variables = network()
    ready = prepared(model, variables, (BATCH, SIZE, SIZE))
    exported = jax.export.export(jax.jit(model.apply), platforms=["cuda"])
    text = exported(ready, IMAGES).mlir_module()
    assert text.count("stablehlo.convolution") == 6


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f])
@pytest.mark.parametrize("shape", [(BATCH, SIZE, SIZE, 3), (2, 11, 11, 3)])
def test_a_gradient_by_prepared_weights_is_refused(jit, shape, cpu):
    """Also where images of another shape do without what was prepared."""
    model, variables = network()
    ready = prepared(model, variables, (BATCH, SIZE, SIZE))

    def loss(params):
        return model.apply({**ready, "params": params}, jnp.ones(shape)).sum()

    with pytest.raises(ConfigError, match="were prepared for inference"):
        jit(jax.grad(loss))(ready["params"])


@pytest.mark.parametrize("shape", [32, "224", (2, 32), (1, 32, 32, 3), (0, 8, 8)])
def test_what_is_no_shape_of_images_is_refused(shape):
    made = random(VGG("conv3-8 |", 5, head="compact"), "unit", size=8)
    with pytest.raises(ConfigError, match="must be number, height and width"):
        made.prepared(shape)


def test_a_prepared_network_is_neither_saved_nor_configured(tmp_path):
    model = VGG("conv3-8 |", 5, head="compact")
    ready = random(model, "unit", size=8).prepared((1, 8, 8))
    for call in (
        lambda: save(ready, tmp_path / "x.safetensors"),
        lambda: ready.configured(dtype="bfloat16"),
        lambda: ready.with_variables(ready.variables),
        lambda: fine_tune(ready, Boxed(None, None, None), BoxRegression()),
    ):
        with pytest.raises(ConfigError, match="the one that it was made from"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def asked(monkeypatch, cpu):
    """The shapes that kernels are prepared for."""
    shapes = []
    monkeypatch.setattr(conv, "prepared", lambda shape, w: shapes.append(shape) or ())
    return shapes


def test_predictions_prepare(asked, tmp_path):
    file = tmp_path / "x.png"
    PIL.Image.new("RGB", (9, 9)).save(file)
    made = random(VGG("conv3-8 |", 5, head="compact"), "unit", size=8)
    assert len(list(predictions(made, [file] * 3))) == 3
    assert asked == [(3, 8, 8, 3)]


def test_the_score_of_a_network_prepares(asked):
    made = random(VGG("conv3-8 |", 5, head="compact"), "unit", size=8)
    split = Split(np.zeros((7, 8, 8, 3), np.uint8), np.zeros(7, np.int32))
    of_network.score(made, split, batch_size=500)
    assert asked == [(7, 8, 8, 3)]


def test_a_run_prepares_for_each_evaluation(asked, tmp_path):
    config = quickstart.get_config()
    fields = {"train": "train[:256]", "validation": "train[300:399]"}
    fields = {f"data.{name}": value for name, value in fields.items()}
    fields |= {"data.test": "test[:149]", "epochs": 1, "shards": 2, "batch_size": 64}
    config.update_from_flattened_dict({**fields, "model.variant": "conv3-8 |"})
    loop.train(config, tmp_path, Console(quiet=True))
    score.score(tmp_path, console=Console(quiet=True))
    # Of 99 and 149 images, and 99 again, a half, rounded up.
    assert [shape[0] for shape in asked] == [50, 75, 50]
