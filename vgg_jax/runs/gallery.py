"""What a report shows of a run besides numbers: predictions, pictures, filters."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from vgg_jax.data import batches
from vgg_jax.evaluation.exact import Evaluation

FILE = "gallery.npz"
_SAMPLES, _MISTAKES = 32, 24


class Gallery(NamedTuple):
    """Attributes:
    samples: uint8 `[S, H, W, C]`, augmented training images as the network saw them.
    filters: float32 `[k, k, C, K]`, kernel of `conv1_1`.
    labels: int32 `[N]` of the test split.
    guesses: int32 `[N]`, predicted.
    confidence: float32 `[N]`, probability of the guess.
    mistakes: int64 `[M]`, the most confident wrong ones, places in the test split.
    pictures: uint8 `[M, H, W, C]`, those images.
    """

    samples: np.ndarray
    filters: np.ndarray
    labels: np.ndarray
    guesses: np.ndarray
    confidence: np.ndarray
    mistakes: np.ndarray
    pictures: np.ndarray


def collect(recipe, dataset, params, test: Evaluation, *, seed: int) -> Gallery:
    """The gallery of a trained network and its evaluation on the test split."""
    labels = test.labels
    probabilities = np.asarray(jax.nn.softmax(test.logits))
    guesses = probabilities.argmax(1).astype(np.int32)
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(guesses != labels)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    first = params["conv1_1"]
    return Gallery(
        samples=_samples(recipe, dataset, seed),
        filters=np.asarray(first.get("kernel", first.get("frozen_kernel"))),
        labels=labels,
        guesses=guesses,
        confidence=confidence,
        mistakes=mistakes,
        pictures=dataset.test.take(mistakes)[0],
    )


def _samples(recipe, dataset, seed):
    """The first images of the first epoch, augmented as in its first step."""
    count = min(_SAMPLES, len(dataset.train))
    batch = next(
        batches.training(
            dataset.train,
            seed=seed,
            batch_size=count,
            epoch=0,
            start=0,
            remainder="drop",
        )
    )
    key = jax.random.key(seed)
    images = recipe.augment.train(
        batch["image"],
        key=jax.random.fold_in(key, 0),
        run_key=key,
        index=batch["index"],
        epoch=batch["epoch"],
    )
    return stretch(np.asarray(images))


def stretch(images: np.ndarray) -> np.ndarray:
    """Any range of values to uint8, over all images alike."""
    low, high = images.min(), images.max()
    return np.uint8(np.round(255 * (images - low) / max(high - low, 1e-12)))


def save(workdir: Path, gallery: Gallery) -> None:
    part = workdir / f"{FILE}.part"
    with open(part, "wb") as file:
        np.savez_compressed(file, **gallery._asdict())
    part.replace(workdir / FILE)


def load(workdir: Path) -> Gallery | None:
    """The gallery of a finished run; None where there is none yet."""
    if not (workdir / FILE).exists():
        return None
    with np.load(workdir / FILE) as arrays:
        return Gallery(**arrays)
