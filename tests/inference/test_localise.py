"""Both protocols of appendix A against loops over crops, with Pillow's scaling."""

import numpy as np
import pytest

from tests.inference.test_descriptors import scaled
from vgg_jax.errors import ConfigError
from vgg_jax.inference.box_merging import merged
from vgg_jax.inference.localise import central_boxes, localise
from vgg_jax.inference.localiser import ANY, check_localiser, of_class, output_names
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG

SIDE, STRIDE, CLASSES = 12, 4, 3
SCALES = (12, 22)
# Its convolutions pad nothing, so a crop of the picture is a crop of the map.
MODEL = VGG("conv1-8 | conv1-16 |", CLASSES, hidden=(12,), conv="lax")
CLASSIFIER = random(MODEL, "imagenet", seed=1, size=SIDE)


def localiser(classes):
    names = output_names(classes)
    model = MODEL.clone(num_classes=len(names))
    return random(model, "imagenet", seed=2, size=SIDE, class_names=names)


PER_CLASS, SHARED = localiser("abc"), localiser([ANY])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 20, 26, 3), np.uint8)


def seen_by(network, crop):
    return np.asarray(network(crop[None], value_range=(0, 255)))[0]


def placed(box, left, top, height, width):
    """A box of a crop in shares of the picture, by way of pixels."""
    x, y = left + box[0] * SIDE, top + box[1] * SIDE
    return np.array(
        [x / width, y / height, box[2] * SIDE / width, box[3] * SIDE / height]
    )


@pytest.mark.parametrize("network", [PER_CLASS, SHARED])
@pytest.mark.parametrize("scale", [12, 15, 40])
def test_the_central_crop_and_the_true_class(network, images, scale):
    labels = np.array([2, 0])
    images = images[:2]
    got = central_boxes(network, images, labels, scale=scale)
    for image, label, box in zip(images, labels, got, strict=True):
        shown = scaled(image, scale)
        height, width = shown.shape[:2]
        top, left = (int(round((side - SIDE) / 2.0)) for side in (height, width))
        outputs = seen_by(network, shown[top : top + SIDE, left : left + SIDE])
        boxes = outputs.reshape(-1, 4)
        own = boxes[label if len(boxes) > 1 else 0]
        wanted = placed(own, left, top, height, width)
        np.testing.assert_allclose(box, wanted, rtol=1e-3, atol=1e-4)


def windows(image, scales):
    """Every window: boxes `[n, classes, 4]` of both, and probabilities, by scale."""
    for scale in scales:
        shown = scaled(image, scale)
        height, width = shown.shape[:2]
        rows = []
        for top in range(0, height - SIDE + 1, STRIDE):
            for left in range(0, width - SIDE + 1, STRIDE):
                crop = shown[top : top + SIDE, left : left + SIDE]
                logits = seen_by(CLASSIFIER, crop)
                boxes = [
                    [placed(b, left, top, height, width) for b in out.reshape(-1, 4)]
                    for out in (seen_by(PER_CLASS, crop), seen_by(SHARED, crop))
                ]
                rows.append((*boxes, np.exp(logits) / np.exp(logits).sum()))
        yield rows


@pytest.fixture(scope="module")
def looped(images):
    """Per picture: its windows by scale; 1x2 and 3x5 of them, up to the edges."""
    return [list(windows(image, SCALES)) for image in images]


@pytest.mark.parametrize(
    "place, network, threshold", [(0, PER_CLASS, 0.5), (1, SHARED, 1.5)]
)
def test_dense_application_is_a_loop_over_windows(
    images, looped, network, place, threshold
):
    got = localise(
        network, CLASSIFIER, images, scales=SCALES, top=2, threshold=threshold
    )
    for i, by_scale in enumerate(looped):
        labels = np.argsort(
            -np.mean([np.mean([r[2] for r in x], 0) for x in by_scale], 0)
        )
        assert got.labels[i].tolist() == labels[:2].tolist()
        rows = sum(by_scale, [])
        for guess, label in enumerate(labels[:2]):
            boxes = [row[place][0 if place else label] for row in rows]
            left, sums = merged(boxes, [row[2][label] for row in rows], threshold)
            np.testing.assert_allclose(
                got.boxes[i, guess], left[0], rtol=1e-3, atol=1e-3
            )
            np.testing.assert_allclose(got.scores[i, guess], sums[0], rtol=1e-3)


def test_the_pictures_tell_an_average_over_scales_from_one_over_windows(looped):
    """So that the test above would see it."""
    order = lambda means: np.argsort(-np.array(means), 1)[:, :2]
    by_scale = [np.mean([np.mean([r[2] for r in x], 0) for x in s], 0) for s in looped]
    by_window = [np.mean([r[2] for r in sum(s, [])], 0) for s in looped]
    assert (order(by_scale) != order(by_window)).any()


def test_a_class_has_the_four_outputs_that_bear_its_name():
    names = PER_CLASS.class_names
    outputs = np.arange(12.0, dtype=np.float32)[None]
    (box,) = of_class(outputs, np.array([1])).tolist()
    shown = [names[int(x)] for x in box]
    assert shown == ["b: centre x", "b: centre y", "b: width", "b: height"]


def test_what_is_no_localiser_is_told(images):
    with pytest.raises(ConfigError, match="has classes, not boxes: .*fine_tune"):
        central_boxes(CLASSIFIER, images[:2], [0, 0], scale=SIDE)
    named = CLASSIFIER.replace(class_names=("a", "b", "c"))
    with pytest.raises(ConfigError, match="has classes, not boxes"):
        check_localiser(named)
    with pytest.raises(ConfigError, match="is a str, not a Network"):
        check_localiser("runs/localiser")
    with pytest.raises(ConfigError, match="does not say the size"):
        check_localiser(SHARED.replace(size=0))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scales": ()}, r"scales=\(\) is out of range"),
        ({"scales": (8,)}, "they need at least 12x12"),
        ({"top": 0}, "top=0 is out of range"),
        (
            {"classifier": CLASSIFIER.replace(model=MODEL.clone(num_classes=4))},
            "for 3 classes",
        ),
        ({"classifier": CLASSIFIER.replace(size=16)}, "one size"),
        ({"localiser": CLASSIFIER}, "has classes, not boxes"),
    ],
)
def test_what_does_not_fit_is_told(images, change, message):
    how = {"localiser": PER_CLASS, "classifier": CLASSIFIER, "scales": (18,)} | change
    with pytest.raises(ConfigError, match=message):
        localise(images=images, **how)


def test_a_compact_head_has_no_windows(images):
    classifier, shared = (
        network.replace(model=network.model.clone(head="compact"))
        for network in (CLASSIFIER, SHARED)
    )
    with pytest.raises(ConfigError, match="both must have head='paper'"):
        localise(shared, classifier, images, scales=(18,))


def test_a_scale_below_the_size_is_told(images):
    with pytest.raises(ConfigError, match="scale=11 .* at least 12"):
        central_boxes(SHARED, images[:2], [0, 0], scale=11)
