"""The exported page in a real browser, from the disk, without a network.

Needs `apt-get install chromium`, `npm install --prefix benchmarks/envs
onnxruntime-web@1.30.0` and jax2onnx.
"""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import vgg_jax
from benchmarks import chromium
from vgg_jax.data import datasets, pictures
from vgg_jax.interop import page

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "benchmarks/envs/node_modules" / page.PACKAGE
NETWORK = Path(__file__).parent / "artefacts/net.safetensors"
ANSWERS = """Array.from(document.querySelectorAll("#answers li"), (row) => [
  row.querySelector("b").textContent, parseFloat(row.querySelector("output").value)])"""


@pytest.fixture(scope="module")
def network():
    network = vgg_jax.load(NETWORK).configured(dtype=jnp.float32, conv="lax")
    return network.replace(class_names=("</script>", *network.class_names[1:]))


@pytest.fixture(scope="module")
def browser(network, tmp_path_factory):
    pytest.importorskip("jax2onnx")
    if not chromium.program() or not RUNTIME.exists():
        pytest.skip("needs Chromium and onnxruntime-web")
    path = tmp_path_factory.mktemp("page") / "page.html"
    facts = {"Accuracy": "<b>52%</b>"}
    page.save(network, path, runtime=RUNTIME, facts=facts)
    with chromium.Browser() as browser:
        browser.open(path)
        browser.wait("document.querySelector('#said').textContent.startsWith('Ready')")
        yield browser


def sample():
    images = datasets.load("cifar10_sample", validation="none").test.images
    return [PIL.Image.fromarray(np.asarray(image)) for image in images[:6]]


def larger():
    """Pictures whose sides are scaled down and up, cropped, grey and transparent."""
    picture = sample()[0]
    big = picture.resize((331, 217), PIL.Image.Resampling.BICUBIC)
    clear = big.copy()
    clear.putalpha(PIL.Image.linear_gradient("L").resize(big.size))
    return {
        "down, wide": big,
        "down, high": big.rotate(90, expand=True),
        "up": picture.crop((3, 5, 20, 25)),
        "grey": big.convert("L"),
        "palette": big.quantize(16),
        "transparent": clear,
    }


def answers(browser, name, picture):
    """What the page says of a picture that is dropped on it, and the pixels it saw."""
    browser.evaluate("current = null")
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    browser.drop(name, buffer.getvalue())
    browser.wait("current !== null")
    pixels = browser.evaluate("Array.from(current.pixels)")
    return browser.evaluate(ANSWERS), np.reshape(pixels, (32, 32, 3))


def assert_same(network, found, seen):
    probabilities = np.asarray(jax.nn.softmax(network(seen[None])))[0]
    order = np.argsort(-probabilities)[:5]
    assert [name for name, _ in found] == [network.class_names[i] for i in order]
    shares = [share / 100 for _, share in found]
    np.testing.assert_allclose(shares, probabilities[order], atol=1e-3)


@pytest.mark.slow
def test_it_says_what_jax_says_of_real_pictures(browser, network):
    for i, picture in enumerate(sample()):
        found, seen = answers(browser, f"{i}.png", picture)
        np.testing.assert_array_equal(seen, np.asarray(picture))
        assert_same(network, found, np.asarray(picture))
    assert not browser.errors


@pytest.mark.slow
def test_it_scales_and_crops_as_training_does(browser, network):
    for name, picture in larger().items():
        found, seen = answers(browser, name, picture)
        want = np.asarray(pictures.fit(pictures.rgb(picture), 32))
        # A canvas multiplies colours by their opacity in 8 bits.
        slack = 2 if name == "transparent" else 0
        assert np.abs(seen - want.astype(int)).max() <= slack, name
        assert_same(network, found, seen.astype(np.uint8))


@pytest.mark.slow
def test_it_shows_where_it_looks_and_what_it_is(browser):
    answers(browser, "a.png", sample()[0])
    browser.evaluate("document.querySelector('#explain').click()")
    browser.wait("!document.querySelector('#heat').hidden")
    assert "less probable" in browser.evaluate("$('said').textContent")
    card = browser.evaluate("document.querySelector('.card').textContent")
    assert "<b>52%</b>" in card and "10" in card
    browser.drop("notes.txt", b"no picture")
    browser.wait("$('said').textContent.startsWith('notes.txt is not a picture')")


@pytest.mark.slow
def test_it_fits_a_phone_and_asks_for_nothing(browser):
    for scheme in ("light", "dark"):
        browser.resize(390, 844, scheme)
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
    refused = browser.evaluate("fetch('data:,x').then(() => false, () => true)")
    assert refused  # by the content security policy: not even that
    schemes = {url.partition(":")[0] for url in browser.requests}
    assert schemes <= {"file", "blob", "data"} and not browser.errors
