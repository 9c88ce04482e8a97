"""Pictures of every kind become what a person sees of them."""

import io

import numpy as np
import PIL.Image
import pytest

from vgg_jax.data import framing, pictures


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


# Measured on torchvision 0.28: the size by Resize, and where CenterCrop then begins.
TORCHVISION = [
    ((451, 333), (256, 224), (346, 256), (61, 16)),
    ((333, 451), (256, 224), (256, 346), (16, 61)),
    ((500, 375), (256, 224), (341, 256), (58, 16)),
    ((375, 500), (384, 224), (384, 512), (80, 144)),
    ((500, 334), (256, 224), (383, 256), (80, 16)),
    ((7, 300), (24, 24), (24, 1028), (0, 502)),
    ((500, 281), (225, 224), (400, 225), (88, 0)),
    ((29, 100), (24, 21), (24, 82), (2, 30)),
    ((33, 33), (31, 24), (31, 31), (4, 4)),
    ((3, 5), (8, 8), (8, 13), (0, 2)),
]


@pytest.mark.parametrize("sides, sizes, scaled, corner", TORCHVISION)
def test_sizes_and_places_are_those_of_torchvision(sides, sizes, scaled, corner):
    scale, size = sizes
    assert pictures.scale(PIL.Image.new("L", sides), scale).size == scaled
    assert tuple(pictures.centred(side, size) for side in scaled) == corner
    # The framed square is that one, in pixels of the unscaled picture.
    box = framing.Frame(scale, size).box(*sides)
    np.testing.assert_allclose(box[:2], np.divide(corner, scaled) * sides, rtol=1e-12)


@pytest.mark.parametrize("sides, sizes, scaled, corner", TORCHVISION)
def test_fit_cuts_where_torchvision_does(sides, sizes, scaled, corner):
    """The numbers of the columns, scaled by Pillow alone, say where the crop began."""
    scale, _ = sizes
    noise = np.random.default_rng(0).integers(0, 256, sides[::-1], np.uint8)
    picture = PIL.Image.fromarray(noise)
    whole = np.asarray(picture.resize(scaled, PIL.Image.Resampling.BILINEAR))
    left, top = (int(round((side - scale) / 2.0)) for side in scaled)  # CenterCrop's
    wanted = whole[top : top + scale, left : left + scale]
    np.testing.assert_array_equal(pictures.fit(picture, scale), wanted)
