"""The end of a run: the test split, read once, and what is kept of it."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax import machine
from vgg_jax import mesh as meshes
from vgg_jax.data import batches
from vgg_jax.data.description import description
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.evaluation import metrics
from vgg_jax.evaluation.exact import Evaluation
from vgg_jax.inference.grad_cam import grad_cam
from vgg_jax.interop import trained
from vgg_jax.nn.conv import quick_to_compile
from vgg_jax.runs import gallery, metric_log
from vgg_jax.training.session import Session
from vgg_jax.training.step import TrainState, network_input

_SAMPLES = 32  # augmented training images kept for the report


def final_evaluation(session: Session, state: TrainState) -> dict[str, Any] | None:
    """Evaluates the weights that the config names, and keeps what the report shows.

    Args:
        session: the run, trained to its last epoch.
        state: the state after the last update.

    Returns:
        The contents of `result.json`, or None if a signal came before the end.
    """
    last = int(state.step)
    if (of := tested(session, state)) is None:
        return None
    state, test = of
    _keep_gallery(session, state, test)
    session.metric_log.show(
        "test", {"step": last, "top1": test.accuracy, "loss": test.loss}
    )
    logits, labels = jnp.asarray(test.logits), jnp.asarray(test.labels)
    confusion = np.asarray(metrics.confusion(logits, labels))
    rows = metric_log.read(session.workdir)
    augment = session.recipe.augment
    return {
        "test": {
            "count": test.count,
            "accuracy": test.accuracy,
            "top5": test.top5,
            "loss": test.loss,
            "per_class": metrics.per_class(confusion, session.dataset.classes),
            "confusion": confusion.tolist(),
        },
        "classes": list(session.dataset.classes),
        "checkpoint": session.config.test_with,
        "epoch": int(state.epochs),
        "step": int(state.step),
        "seconds": sum(row["seconds"] for row in rows if row["kind"] == "epoch"),
        "environment": machine.environment(session.mesh.size),
        "data": description(session.dataset, augment.measured, augment.components),
        **({"init": session.init} if session.init else {}),
        "set_aside": _set_aside(session.workdir),
    }


def tested(session: Session, state: TrainState) -> tuple[TrainState, Evaluation] | None:
    """Reads the test split; all processes of a run do this together.

    Args:
        session, state: as above.

    Returns:
        The state of the weights that the config names, and their evaluation; None if a
        signal came before the end.
    """
    if session.config.test_with == "best":
        state = session.best(state)
    test = session.evaluate("test", state.variables)
    session.tell_damaged()
    if test is None or session.stop():
        return None
    if session.is_spread:  # the first process alone shows the filters
        first = meshes.gathered(state.params["conv1_1"])
        state = state.replace(params={**state.params, "conv1_1": first})
    return state, test


def _set_aside(workdir: Path) -> list[str]:
    """Returns what was damaged and is not in the run any more; [] as a rule."""
    return sorted(path.name for path in (workdir / "damaged").glob("*"))


def _keep_gallery(session: Session, state: TrainState, test: Evaluation) -> None:
    shown = gallery.collect(
        logits=test.logits,
        labels=test.labels,
        pictures=lambda index: session.dataset.test.take(index)[0],
        samples=_samples(session),
        filters=np.asarray(state.params["conv1_1"]["kernel"]),
        explain=partial(_heat, session),
    )
    gallery.save(session.workdir, shown)


def _heat(
    session: Session, pictures: np.ndarray, guesses: np.ndarray
) -> np.ndarray | None:
    """Returns where the tested network saw its guesses, by Grad-CAM.

    None where it cannot say, as of grey images: the result does not wait for that.

    Args:
        session: the run, whose checkpoint is read.
        pictures: uint8 `[E, H, W, 3]`.
        guesses: int `[E]`, classes.

    Returns:
        float32 `[E, h, w]`, the largest value of each map 1.
    """
    try:
        network = trained.read(session.workdir)
        network = network.configured(conv=quick_to_compile(network.model.dtype))
        side = session.config.augment.resize or pictures.shape[1]
        size = (len(pictures), side, side, pictures.shape[-1])
        seen = jax.image.resize(pictures.astype(np.float32) / 255, size, "bilinear")
        maps = np.asarray(grad_cam(network, seen, guesses, value_range=(0, 1)))
    except (ConfigError, RunError):
        return None
    return maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12)


def _samples(session: Session) -> np.ndarray:
    """Returns the first images that the first update showed to the network."""
    config = session.config
    first_batch = next(
        batches.training(
            session.dataset.train,
            seed=config.seed,
            batch_size=config.batch_size,
            epoch=0,
            start=0,
            remainder=config.remainder,
        )
    )
    images, _ = jax.jit(partial(network_input, session.recipe))(
        first_batch, seed=jnp.uint32(config.seed), step=jnp.int32(0)
    )
    return np.asarray(images[:_SAMPLES])
