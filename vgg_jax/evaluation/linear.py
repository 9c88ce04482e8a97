"""How well a linear classifier tells classes apart by features that stay as they are.

The paper's appendix B: descriptors (`inference.descriptors`), and a linear SVM of
scikit-learn, which is an optional dependency (`vgg_jax[probe]`).
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.errors import ConfigError, RunError, choose
from vgg_jax.fields import Rule, check_value, in_range

# Module, class and settings in scikit-learn.
_KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "svm": ("sklearn.svm", "LinearSVC", {"max_iter": 10_000, "dual": False}),
    "logistic": ("sklearn.linear_model", "LogisticRegression", {"max_iter": 10_000}),
}
_STRENGTHS = Rule(
    lambda all_: all_ and 0 < min(all_) <= max(all_) < math.inf, "above 0"
)
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


class Labelled(NamedTuple):
    """Features of images and their classes.

    Attributes:
        features: floating point, `[N, D]`.
        labels: whole numbers, `[N]`.
    """

    features: np.ndarray
    labels: np.ndarray


class LinearScore(NamedTuple):
    """What a linear classifier reaches.

    Attributes:
        accuracy: share of the test images that it classifies rightly, in [0, 1].
        validation_accuracy: the same by cross-validation on the training images, which
            chose the strength.
        strength: scikit-learn's C, the weight of the training errors against the norm
            of the weights.
        classifier: scikit-learn's, fitted to all training images at that strength.
    """

    accuracy: float
    validation_accuracy: float
    strength: float
    classifier: Any


def linear_probe(
    train: Labelled,
    test: Labelled,
    *,
    kind: str = "svm",
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
) -> LinearScore:
    """Fits a linear classifier to training images and scores it on test images once.

    Its strength is chosen by cross-validation on the training images, stratified by
    class; of equal ones the smallest is taken.

    Args:
        train: features and labels.
        test: likewise.
        kind: "svm", one against the rest with the squared hinge loss, or "logistic".
        strengths: the values of C to choose from.
        folds: parts of the training images, each of which is validated on once.

    Raises:
        ConfigError: `kind` is unknown; a strength is not above 0; features or labels
            have a wrong shape or type, or hold NaN, or there are none; there is one
            class only, or one with fewer images than folds; or the
            test images have classes that the training images have not.
        RunError: scikit-learn is not installed.
    """
    choose(_KINDS, kind, "kind")
    check_value("folds", folds, int, in_range(2))
    check_value("strengths", strengths, Sequence[float], _STRENGTHS)
    train, test = _checked(train, "train"), _checked(test, "test")
    _check_classes(train, test, folds)
    search = _search(kind, strengths, folds).fit(*train)
    return LinearScore(
        accuracy=float(search.score(*test)),
        validation_accuracy=float(search.best_score_),
        strength=float(search.best_params_["C"]),
        classifier=search.best_estimator_,
    )


def _search(kind: str, strengths: Sequence[float], folds: int) -> Any:
    """Returns scikit-learn's search for the best strength."""
    name, classifier, settings = _KINDS[kind]
    try:
        selection: Any = importlib.import_module("sklearn.model_selection")
        module: Any = importlib.import_module(name)
    except ImportError as error:
        raise RunError(
            "a linear probe needs scikit-learn, which is not installed here: "
            "pip install 'vgg_jax[probe]'"
        ) from error
    return selection.GridSearchCV(
        getattr(module, classifier)(**settings),
        {"C": sorted(strengths)},
        cv=selection.StratifiedKFold(folds, shuffle=True, random_state=0),
    )


def _checked(images: Labelled, name: str) -> Labelled:
    features, labels = np.asarray(images.features), np.asarray(images.labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not features.size:
        raise ConfigError(
            f"{name}: features of shape {list(features.shape)} and labels of shape "
            f"{list(labels.shape)} are not [N, D] and [N]"
        )
    if features.dtype.kind not in "fiu" or labels.dtype.kind not in "iu":
        raise ConfigError(
            f"{name}: features of type {features.dtype} and labels of type "
            f"{labels.dtype} must be numbers and whole numbers"
        )
    if not np.isfinite(features).all():
        raise ConfigError(f"{name}: the features hold NaN or infinity")
    return Labelled(features, labels)


def _check_classes(train: Labelled, test: Labelled, folds: int) -> None:
    widths = train.features.shape[1], test.features.shape[1]
    if widths[0] != widths[1]:
        raise ConfigError(
            f"train has {widths[0]} features per image, test {widths[1]}: they must "
            "come from the same layer and scales"
        )
    classes, counts = np.unique(train.labels, return_counts=True)
    unseen = np.setdiff1d(test.labels, classes)
    if unseen.size:
        raise ConfigError(f"test: class {unseen[0]} is not among those of train")
    if len(classes) < 2:
        raise ConfigError(
            "train: all images are of one class: there must be two or more"
        )
    if counts.min() < folds:
        raise ConfigError(
            f"train: class {classes[counts.argmin()]} has {counts.min()} images, fewer "
            f"than folds={folds}: take fewer folds, or more images"
        )
