"""Squares of scaled pictures, against scaling with Pillow and cutting with NumPy."""

import numpy as np
import PIL.Image
import pytest

from vgg_jax.data import framing, pictures
from vgg_jax.data.framing import Centre, Frame, RandomCrop

SIZES = [(60, 40), (40, 60), (33, 33), (200, 10), (1, 1), (7, 300)]


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return PIL.Image.fromarray(pixels.astype(np.uint8))


def scaled(image, scale):
    sides = [int(scale * side / min(image.size)) for side in image.size]
    return np.asarray(image.resize(sides, PIL.Image.Resampling.BILINEAR), int)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [24, 31, 90])
def test_the_square_is_one_of_the_scaled_picture(size, scale):
    """But for rounding, which Pillow does once per axis."""
    image = picture(*size)
    whole = scaled(image, scale)
    for across, down in [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.3, 0.8)]:
        got = np.asarray(Frame(scale, 24, across, down).cut(image), int)
        spans = [side - 24 + 1 for side in whole.shape[:2]]
        top, left = (
            int(round((span - 1) / 2.0))  # as torchvision's CenterCrop
            if place == 0.5
            else max(0, int(np.ceil(place * span)) - 1)
            for place, span in zip((down, across), spans, strict=True)
        )
        wanted = whole[top : top + 24, left : left + 24]
        assert np.abs(got - wanted).max() <= 2


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_at_its_own_scale_is_what_predictions_see(size):
    image = picture(*size)
    got = Centre(24).at(0).cut(image)
    np.testing.assert_array_equal(got, pictures.fit(image, 24))


def test_random_crops_reach_every_place_and_every_scale():
    crops = [RandomCrop(8, (10, 12), seed=1, epoch=2).at(n) for n in range(600)]
    assert {crop.scale for crop in crops} == {10, 11, 12}
    places = {
        tuple(round(x) for x in crop.box(10, 10)[:2])
        for crop in crops
        if crop.scale == 10
    }
    assert places == {(x, y) for x in range(3) for y in range(3)}


def test_random_crops_are_a_function_of_seed_epoch_and_number():
    known = RandomCrop(8, (10, 90), seed=1, epoch=2)
    assert known.at(5) == RandomCrop(8, (10, 90), seed=1, epoch=2).at(5)
    others = [known.at(6), RandomCrop(8, (10, 90), 1, 3).at(5)]
    assert known.at(5) not in [*others, RandomCrop(8, (10, 90), 2, 2).at(5)]


def test_the_paper_tests_at_the_middle_scale():
    assert [framing.tested_at(s) for s in [(256,), (384,), (256, 512)]] == [
        256,
        384,
        384,
    ]
