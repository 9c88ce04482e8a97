"""Linear probes: the protocol, on data whose answer is known.

Those that fit need scikit-learn, which the package does not (`vgg_jax[probe]`).
"""

import sys

import numpy as np
import pytest

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.evaluation.linear import Labelled, linear_probe


def blobs(count, spread, seed, classes=3):
    """`count` points about each of the unit vectors."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    points = np.eye(classes, 5)[labels] + spread * rng.normal(size=(len(labels), 5))
    return Labelled(points.astype(np.float32), labels)


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_it_tells_apart_what_is_apart(kind):
    pytest.importorskip("sklearn")
    score = linear_probe(blobs(20, 0.05, 0), blobs(30, 0.05, 1), kind=kind)
    assert score.accuracy == score.validation_accuracy == 1
    assert score.strength == 0.01, "all strengths are equally good"
    assert (score.classifier.predict(np.eye(3, 5)) == [0, 1, 2]).all()


def test_validation_chooses_and_test_only_reports():
    """Labels of the test images cannot matter to the choice; 24 of 40 are turned."""
    pytest.importorskip("sklearn")
    train, test = blobs(20, 0.3, 0, 2), blobs(20, 0.0, 1, 2)
    turned = test.labels.copy()
    turned[:24] = 1 - turned[:24]
    straight, other = (
        linear_probe(train, Labelled(test.features, labels))
        for labels in (test.labels, turned)
    )
    assert other[1:3] == straight[1:3]
    assert straight.accuracy == 1 and other.accuracy == 16 / 40


def test_the_strength_is_the_one_that_validates_best():
    """Against a loop over folds by hand."""
    model_selection = pytest.importorskip("sklearn.model_selection")
    svm = pytest.importorskip("sklearn.svm")
    train = blobs(20, 0.5, 9)
    folds = model_selection.StratifiedKFold(3, shuffle=True, random_state=0)
    means = {}
    for strength in (0.001, 0.1, 10.0):
        rates = []
        for fit, held_out in folds.split(*train):
            classifier = svm.LinearSVC(C=strength, dual=False)
            classifier.fit(train.features[fit], train.labels[fit])
            guesses = classifier.predict(train.features[held_out])
            rates.append(np.mean(guesses == train.labels[held_out]))
        means[strength] = np.mean(rates)
    assert sorted(means, key=means.__getitem__) == [10.0, 0.001, 0.1]
    score = linear_probe(train, train, strengths=tuple(means), folds=3)
    assert score.strength == max(means, key=means.__getitem__)
    assert score.validation_accuracy == pytest.approx(max(means.values()))


def test_without_scikit_learn(monkeypatch):
    for name in ("sklearn", "sklearn.model_selection"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RunError, match=r"needs scikit-learn.*vgg_jax\[probe\]"):
        linear_probe(blobs(5, 0.1, 0), blobs(5, 0.1, 1))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f, y: {"kind": "forest"}, "kind='forest' is unknown"),
        (lambda f, y: {"folds": 1}, "folds=1 is out of range"),
        (lambda f, y: {"train": Labelled(f, y[:-1])}, "train: features of shape"),
        (lambda f, y: {"test": Labelled(f[None], y)}, r"test: .* are not \[N, D\]"),
        (lambda f, y: {"train": Labelled(f * np.nan, y)}, "hold NaN"),
        (lambda f, y: {"train": Labelled(f, y * 0), "test": Labelled(f, y * 0)}, "one"),
        (lambda f, y: {"test": Labelled(f, y + 1)}, "class 3 is not among"),
        (lambda f, y: {"test": Labelled(f[:, 1:], y)}, "5 features per image, test 4"),
        (lambda f, y: {"folds": 6}, "class 0 has 5 images, fewer than folds=6"),
    ],
)
def test_wrong_use(change, message):
    images = blobs(5, 0.1, 0)
    with pytest.raises(ConfigError, match=message):
        linear_probe(**{"train": images, "test": images, **change(*images)})
