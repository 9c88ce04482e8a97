"""One update: what its loss is made of, against NumPy in float64."""

import jax
import numpy as np
import pytest

from tests.evaluation.test_metrics import softmax_loss
from vgg_jax.data.batches import Batch, TrainingBatch
from vgg_jax.nn.vgg import VGG
from vgg_jax.training import step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

NUMBERS = np.random.default_rng(0)
IMAGES = NUMBERS.integers(0, 256, (12, 8, 8, 3), np.uint8)
LABELS = NUMBERS.integers(0, 10, 12).astype(np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_training_is_smoothed_and_evaluation_is_not(smoothing):
    recipe = step.Recipe(
        model=VGG("conv3-8 |", 10, head="compact", conv="lax"),
        augment=Augment(normalize="unit"),
        optimizer=SGD().transformation(),
        schedule=lambda _: 0.1,
        label_smoothing=smoothing,
    )
    state = step.init(recipe, seed=0, image_shape=IMAGES.shape[1:])
    logits = recipe.model.apply(state.variables, IMAGES / np.float32(255))
    index = np.arange(12, dtype=np.int32)
    batch = TrainingBatch(IMAGES, LABELS, index, np.int32(0))
    _, metrics = jax.jit(lambda s: step.train_step(recipe, s, batch))(state)
    wanted = softmax_loss(logits, LABELS, smoothing).mean()
    assert float(metrics["loss"]) == pytest.approx(wanted, rel=1e-5)
    sums, _ = step.eval_step(recipe, state.variables, Batch(IMAGES, LABELS))
    assert float(sums.loss) == pytest.approx(softmax_loss(logits, LABELS).sum(), 1e-5)
