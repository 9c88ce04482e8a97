"""What is traced for one platform, against what is decided as it is lowered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgg_jax import mesh as meshes
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.nn.by_platform import by_platform, lowered_for
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

MODEL = VGG("conv3-32 conv3-64 | conv3-72 |", 5, head="compact", batch_norm=True)


def traced():
    variables = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return str(jax.make_jaxpr(MODEL.apply)(variables, jnp.zeros((2, 8, 8, 3))))


def test_what_is_traced_for_one_platform_holds_no_other(without_kernels):
    with lowered_for("gpu"):
        gpu = traced()
    with lowered_for("cpu"):
        cpu = traced()
    assert "platform_index" in traced()
    # On a CPU conv2_1 alone is Winograd's: 36 products, and that by which its kernel is
    # transformed.
    for text, convolutions, products in ((gpu, 3, 0), (cpu, 2, 36)):
        assert "platform_index" not in text
        assert text.count("conv_general_dilated[") == convolutions
        assert text.count("dot_general[") == products + (products > 0) + 1  # fc8


def test_an_error_leaves_nothing_behind():
    with pytest.raises(RuntimeError), lowered_for("tpu"):
        raise RuntimeError
    answer = jax.jit(lambda x: by_platform(x, cpu=lambda x: x + 1, default=lambda x: x))
    assert answer(1) == (2 if jax.default_backend() == "cpu" else 1)


@pytest.mark.usefixtures("cpu")  # a GPU's algorithms are chosen by their times
@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "stage"])
def test_a_step_of_a_mesh_has_the_bits_of_one_for_any_platform(remat):
    recipe = step.Recipe(
        model=MODEL.clone(remat=remat),
        augment=Augment(normalize="cifar10"),
        optimizer=SGD().transformation(),
        schedule=lambda _: 0.1,
    )
    numbers = np.random.default_rng(0)
    batch = TrainingBatch(
        images=numbers.integers(0, 256, (16, 16, 16, 3), np.uint8),
        labels=numbers.integers(0, 5, 16).astype(np.int32),
        index=np.arange(16, dtype=np.int32),
        epoch=np.int32(0),
    )
    found = []
    for mesh in (None, meshes.over(1)):
        state = step.init(recipe, seed=0, image_shape=(16, 16, 3))
        train, _ = step.compiled(recipe, mesh)
        for _ in range(2):
            state, _ = train(state, batch)
        found.append(state.params)
    jax.tree.map(np.testing.assert_array_equal, *found)
