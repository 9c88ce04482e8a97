"""What a report shows besides numbers: predictions, pictures, filters."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from vgg_jax.errors import RunError
from vgg_jax.files import write_atomically

FILE = "gallery.npz"
_MISTAKES = 24  # pictures kept


class Gallery(NamedTuple):
    """Predictions and pictures of a finished run.

    Attributes:
        samples: uint8 `[S, H, W, C]`, augmented training images.
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


def collect(
    *,
    logits: np.ndarray,
    labels: np.ndarray,
    pictures: Callable[[np.ndarray], np.ndarray],
    samples: np.ndarray,
    filters: np.ndarray,
) -> Gallery:
    """Returns the gallery of a trained network.

    Args:
        logits: float32 `[N, K]`, of the test split.
        labels: int32 `[N]`, of the test split.
        pictures: images of the test split by their places in it.
        samples: `[S, H, W, C]`, augmented training images, in any range.
        filters: float32 `[k, k, C, K]`, kernel of `conv1_1`.
    """
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    guesses = probabilities.argmax(1).astype(np.int32)
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(guesses != labels)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    return Gallery(
        samples=stretch(samples),
        filters=filters,
        labels=labels,
        guesses=guesses,
        confidence=confidence,
        mistakes=mistakes,
        pictures=pictures(mistakes),
    )


def stretch(images: np.ndarray) -> np.ndarray:
    """Returns values of any range as uint8, stretched alike over all images."""
    low, high = images.min(), images.max()
    scaled = 255 * (images - low) / max(high - low, 1e-12)
    return np.round(scaled).astype(np.uint8)


def save(workdir: Path, gallery: Gallery) -> None:
    """Writes the gallery of a run by one rename."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **gallery._asdict())
    write_atomically(workdir / FILE, buffer.getvalue())


def load(workdir: Path) -> Gallery | None:
    """Returns the gallery of a finished run, or None where there is none yet.

    Raises:
        RunError: its file is damaged.
    """
    file = workdir / FILE
    try:
        # Read first, as `np.load` leaves a damaged file open. Zip members carry a CRC.
        with np.load(io.BytesIO(file.read_bytes())) as arrays:
            return Gallery(**arrays)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise RunError(
            f"{file} is damaged ({error}): remove it, and the page is made without its "
            "pictures"
        ) from error
