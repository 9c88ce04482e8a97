"""Many guesses of where an object is, made few: OverFeat's greedy merging.

Sermanet et al. (2014), section 4.3, which the paper's appendix A uses: as long as two
boxes match well enough, the two that match best are replaced by their average. Class
scores of what is merged are added up.
"""

import numpy as np
from numpy.typing import ArrayLike

from vgg_jax.data.boxes import iou
from vgg_jax.errors import ConfigError

THRESHOLD = 0.5  # mismatch up to which boxes are merged


def mismatch(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns how badly boxes match: 0 where they are the same.

    OverFeat's text has "the sum of the distance between centers of the two bounding
    boxes and the intersection area of the boxes", of which the least is merged. A large
    intersection would count against a match then, so here what is added to the distance
    is 1 minus the intersection over union. The distance is in shares of the picture.

    Args:
        first: float32 `[..., 4]` (`data.boxes`).
        second: of the same shape, or one that broadcasts as for `iou`.

    >>> mismatch(np.float32([0.5, 0.5, 0.5, 1]), np.float32([0.5, 0.5, 1, 1])).item()
    0.5
    """
    apart = np.sqrt(((first[..., :2] - second[..., :2]) ** 2).sum(-1))
    return apart + 1 - iou(first, second)


def merged(
    boxes: ArrayLike, scores: ArrayLike, threshold: float = THRESHOLD
) -> tuple[np.ndarray, np.ndarray]:
    """Merges boxes greedily.

    Args:
        boxes: float32 `[N, 4]` (`data.boxes`).
        scores: float32 `[N]`, of the class in the window that each box is from.
        threshold: the largest `mismatch` of two boxes that are merged.

    Returns:
        The boxes that are left, float32 `[M, 4]`, and their scores, float32 `[M]`, each
        the sum of those merged into it; the highest score first.

    Raises:
        ConfigError: there is no box, or not one score for each.

    >>> one, near, far = [0.25, 0.5, 0.5, 1], [0.3125, 0.5, 0.5, 1], [0.9, 0.5, 0.2, 1]
    >>> left, scores = merged([one, far, near], [0.5, 0.75, 0.5])
    >>> left[0].tolist(), scores.tolist()
    ([0.28125, 0.5, 0.5, 1.0], [1.0, 0.75])
    """
    boxes, scores = (np.asarray(x, np.float32) for x in (boxes, scores))
    if boxes.shape != (len(scores), 4) or not len(boxes):
        raise ConfigError(
            f"boxes of shape {list(boxes.shape)} and scores of {list(scores.shape)}: "
            "they must be [N, 4] and [N], and N at least 1"
        )
    while len(boxes) > 1:
        pairs = mismatch(boxes[:, None], boxes[None])
        pairs[np.tril_indices(len(boxes))] = np.inf
        i, j = np.unravel_index(np.argmin(pairs), pairs.shape)
        if not pairs[i, j] <= threshold:
            break
        boxes, scores = (_joined(x, int(i), int(j)) for x in (boxes, scores))
        boxes[-1] /= 2  # the average of the two; the scores stay their sum
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def _joined(rows: np.ndarray, i: int, j: int) -> np.ndarray:
    """Returns rows with the sum of two, at the end, in the place of both."""
    return np.concatenate([np.delete(rows, (i, j), 0), [rows[i] + rows[j]]])
