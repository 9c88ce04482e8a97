"""Pictures of every kind become what a person sees of them."""

import io

import numpy as np
import PIL.Image
import pytest

from vgg_jax.data import pictures


def saved(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return PIL.Image.open(file)


@pytest.mark.parametrize("form, order", [("png", "<"), ("tiff", "<"), ("tiff", ">")])
@pytest.mark.parametrize("form_of_grey", ["rgb", "eight_bits"])
def test_16_bits_are_scaled(form, order, form_of_grey):
    """As libpng's png_set_scale_16 does: (65535 v + 32895) >> 16 of 0 ... 255."""
    values = np.arange(65_536, dtype=np.dtype(f"{order}u2")).reshape(256, 256)
    picture = getattr(pictures, form_of_grey)(saved(PIL.Image.fromarray(values), form))
    expected = (values.astype(np.int64) * 255 + 32_895) >> 16
    got = np.asarray(picture)
    np.testing.assert_array_equal(got if got.ndim == 2 else got[..., 0], expected)


def test_a_16_bit_pgm_is_scaled():
    data = b"P5\n4 1\n65535\n" + np.array([0, 257, 32_896, 65_535], ">u2").tobytes()
    picture = pictures.rgb(PIL.Image.open(io.BytesIO(data)))
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_without_a_range_are_refused(kind):
    picture = saved(PIL.Image.fromarray(np.ones((4, 4), kind)), "tiff")
    with pytest.raises(ValueError, match="white is not defined"):
        pictures.rgb(picture)


def indexed():
    picture = PIL.Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30] * 256)
    return picture


RGB = PIL.Image.new("RGB", (4, 4), (10, 20, 30))


# By hand: transparent shows white, half of it the mean with white; ink is subtracted.
@pytest.mark.parametrize(
    "picture, form, options, expected",
    [
        (PIL.Image.new("LA", (4, 4), (10, 0)), "png", {}, (255, 255, 255)),
        (PIL.Image.new("LA", (4, 4), (10, 255)), "png", {}, (10, 10, 10)),
        (PIL.Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "png", {}, (255, 255, 255)),
        (indexed(), "png", {}, (10, 20, 30)),
        (indexed(), "png", {"transparency": 0}, (255, 255, 255)),
        (indexed(), "png", {"transparency": bytes([51])}, (206, 208, 210)),
        (indexed(), "gif", {"transparency": 0}, (255, 255, 255)),
        (RGB, "png", {"transparency": (10, 20, 30)}, (255, 255, 255)),
        (PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "tiff", {}, (255, 0, 0)),
        (PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpeg", {}, (254, 0, 0)),
        (PIL.Image.new("1", (4, 4), 1), "png", {}, (255, 255, 255)),
    ],
)
def test_transparency_palettes_and_inks(picture, form, options, expected):
    converted = pictures.rgb(saved(picture, form, **options))
    np.testing.assert_allclose(converted.getpixel((0, 0)), expected, atol=1)
    assert converted.mode == "RGB"


def test_fit_is_antialiased_and_central():
    """Stripes of one pixel average to grey; the sides that are cut off are black."""
    pixels = np.zeros((80, 160, 3), np.uint8)
    pixels[::2, 40:120] = 255
    fitted = np.asarray(pictures.fit(PIL.Image.fromarray(pixels), 10))
    assert fitted.shape == (10, 10, 3)
    np.testing.assert_allclose(fitted[2:-2, 2:-2], 127.5, atol=2)
    assert pictures.fit(PIL.Image.new("RGB", (3, 5)), 8).size == (8, 8)
