"""Probabilities of pictures: of any kind, in any number, with some that are none."""

import numpy as np
import PIL.Image
import pytest

from vgg_jax.data import pictures
from vgg_jax.errors import ConfigError
from vgg_jax.inference.predict import predictions, probabilities
from vgg_jax.interop.network import random
from vgg_jax.nn.vgg import VGG


@pytest.fixture(scope="module")
def network():
    model = VGG("conv3-8 |", 10, head="compact", conv="lax")
    return random(model, "cifar10", size=16)


@pytest.fixture
def files(tmp_path):
    """Five pictures, the second a text, the fourth truncated."""
    rng, files = np.random.default_rng(0), []
    for i, size in enumerate([(16, 16), (3, 3), (40, 24), (90, 90), (24, 40)]):
        file = tmp_path / f"{i}.png"
        PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(file)
        files.append(file)
    files[1].write_text("no picture")
    files[3].write_bytes(files[3].read_bytes()[:300])
    return files


def test_they_are_softmax_of_the_logits(network):
    images = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
    logits = np.asarray(network(images), np.float64)
    want = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities(network, images), want, rtol=1e-5)
    mirrored = np.asarray(network(images[:, :, ::-1]), np.float64)
    both = np.exp((logits + mirrored) / 2)
    got = probabilities(network, images, views=2)
    np.testing.assert_allclose(got, both / both.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_every_file_is_answered_in_order(network, files, batch_size):
    found = list(predictions(network, files, batch_size=batch_size))
    assert [p.file for p in found] == files
    assert [bool(p.error) for p in found] == [False, True, False, True, False]
    good = [files[i] for i in (0, 2, 4)]
    images = np.stack([pictures.read(file, 16) for file in good])
    want = probabilities(network, images)
    got = [p.probabilities for p in found if not p.error]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    assert found[0].top(10)[0][0] == int(np.argmax(want[0]))


def test_what_cannot_be_predicted(network, files):
    with pytest.raises(ConfigError, match="does not say the size"):
        next(predictions(network.replace(size=0), files))
    with pytest.raises(ConfigError, match="views=3 is unknown"):
        probabilities(network, np.zeros((1, 16, 16, 3), np.uint8), views=3)


def test_a_grey_network_sees_grey_pictures(files):
    """Pillow's luma of the same pixels."""
    grey = random(
        VGG("conv3-8 |", 10, head="compact", conv="lax"), "unit", size=16, channels=1
    )
    found = next(predictions(grey, files[:1]))
    luma = np.asarray(PIL.Image.open(files[0]).convert("L"))[..., None]
    np.testing.assert_array_equal(found.picture, luma)
    want = probabilities(grey, luma[None])[0]
    np.testing.assert_allclose(found.probabilities, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "CMYK", "I;16", "LA"])
def test_pictures_of_every_mode(mode, tmp_path):
    file = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    PIL.Image.new(mode, (9, 20), 0).save(file)
    assert pictures.read(file, 16).shape == (16, 16, 3)


def test_a_photo_is_turned_upright(tmp_path):
    """EXIF's orientation 6: the camera's left is the picture's top."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    seen = pictures.read(tmp_path / "x.png", 8)
    assert seen[:4].min() == 255 and seen[4:].max() == 0
