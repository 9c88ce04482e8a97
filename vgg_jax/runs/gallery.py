"""What a report shows besides numbers: predictions, pictures, filters."""

import io
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from vgg_jax.errors import RunError
from vgg_jax.files import write_atomically

FILE = "gallery.npz"
MISTAKES = 24  # the most confident ones, whose pictures are always kept
_PER_CELL = 4  # pictures at most of those who take one class for another, ...
_MOST_BYTES = 1 << 19  # ... while all pictures are smaller than this


class Gallery(NamedTuple):
    """Predictions and pictures of a finished run.

    Attributes:
        samples: uint8 `[S, H, W, C]`, augmented training images.
        filters: float32 `[k, k, C, K]`, kernel of `conv1_1`.
        labels: int32 `[N]` of the test split.
        guesses: int32 `[N]`, predicted.
        confidence: float32 `[N]`, probability of the guess.
        mistakes: int64 `[M]`, wrong ones, places in the test split: the `MISTAKES` most
            confident first, then of every pair of classes some.
        pictures: uint8 `[M, H, W, C]`, those images.
        heat: uint8 `[E, h, w]` of the first `E` mistakes, how much each place of the
            picture speaks for the guess; None where that was not kept.
    """

    samples: np.ndarray
    filters: np.ndarray
    labels: np.ndarray
    guesses: np.ndarray
    confidence: np.ndarray
    mistakes: np.ndarray
    pictures: np.ndarray
    heat: np.ndarray | None = None


def collect(
    *,
    logits: np.ndarray,
    labels: np.ndarray,
    pictures: Callable[[np.ndarray], np.ndarray],
    samples: np.ndarray,
    filters: np.ndarray,
    explain: Callable[[np.ndarray, np.ndarray], np.ndarray | None] | None = None,
) -> Gallery:
    """Returns the gallery of a trained network.

    Args:
        logits: float32 `[N, K]`, of the test split.
        labels: int32 `[N]`, of the test split.
        pictures: images of the test split by their places in it.
        samples: `[S, H, W, C]`, augmented training images, in any range.
        filters: float32 `[k, k, C, K]`, kernel of `conv1_1`.
        explain: heat maps `[E, h, w]` in [0, 1] of pictures `[E, H, W, C]` and their
            guesses `[E]`; it, or what it returns, is None to keep none.
    """
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    guesses = probabilities.argmax(1).astype(np.int32)
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(guesses != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    size = pictures(wrong[:1]).nbytes
    mistakes = chosen(wrong, labels, guesses, _MOST_BYTES // max(size, 1))
    kept = pictures(mistakes)
    maps = None
    if explain and len(mistakes):
        maps = explain(kept[:MISTAKES], guesses[mistakes[:MISTAKES]])
    return Gallery(
        samples=stretch(samples),
        filters=filters,
        labels=labels,
        guesses=guesses,
        confidence=confidence,
        mistakes=mistakes,
        pictures=kept,
        heat=None if maps is None else _bytes(maps),
    )


def chosen(
    wrong: np.ndarray, labels: np.ndarray, guesses: np.ndarray, most: int
) -> np.ndarray:
    """Returns whose pictures are kept, int `[M]`.

    The first `MISTAKES`, then the first of every pair of classes, the second of every
    pair, and so on up to `_PER_CELL`, as long as they are not more than `most`.

    Args:
        wrong: int `[W]`, places of the mistakes, the most confident first.
        labels, guesses: int `[N]`, by place.
        most: number of pictures, unless `MISTAKES` is larger.
    """
    seen: Counter[tuple[int, int]] = Counter()
    ranks = np.zeros(len(wrong), int)
    for i, place in enumerate(wrong):
        cell = int(labels[place]), int(guesses[place])
        ranks[i], seen[cell] = seen[cell], seen[cell] + 1
    rest = np.arange(len(wrong))[MISTAKES:]
    rest = rest[ranks[rest] < _PER_CELL]
    rest = rest[np.argsort(ranks[rest], kind="stable")]
    return np.concatenate([wrong[:MISTAKES], wrong[rest]])[: max(most, MISTAKES)]


def stretch(images: np.ndarray) -> np.ndarray:
    """Returns values of any range as uint8, stretched alike over all images."""
    low, high = images.min(), images.max()
    scaled = 255 * (images - low) / max(high - low, 1e-12)
    return np.round(scaled).astype(np.uint8)


def _bytes(shares: np.ndarray) -> np.ndarray:
    return np.round(255 * shares).astype(np.uint8)


def save(workdir: Path, gallery: Gallery) -> None:
    """Writes the gallery of a run by one rename."""
    buffer = io.BytesIO()
    kept = {k: array for k, array in gallery._asdict().items() if array is not None}
    np.savez_compressed(buffer, **kept)
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
