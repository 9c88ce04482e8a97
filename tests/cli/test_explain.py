"""`vgg explain`: the sheet holds all it shows, and every bad input is one line."""

import re
import sys

import numpy as np
import PIL.Image
import pytest

import vgg_jax
from vgg_jax.cli import command
from vgg_jax.cli import explain as explain_command
from vgg_jax.errors import UserError
from vgg_jax.interop.network import random

NAMES = ("<b>cat</b>", "dog", "$x$")


def run(*arguments):
    """What `vgg explain` does, its errors raised."""
    explain_command.run(
        command.parser_of("explain").parse_args(list(map(str, arguments)))
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a network of 16 pixels and pictures of some kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vgg_jax.inference.explain._STEPS", (16,))
    model = vgg_jax.VGG("conv3-4 | conv3-5 |", 3, head="compact")
    network = random(model, "cifar10", size=16, class_names=NAMES)
    vgg_jax.save(network, "net.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    PIL.Image.fromarray(pixels).save("clear.png")
    PIL.Image.fromarray(pixels[..., 0]).save("grey.png")
    return tmp_path


def test_a_page_that_holds_all_it_shows(place, capsys):
    run("clear.png", "--weights=net.safetensors", "--class=2", "--channel=relu2_1:3")
    text = (place / "explain.html").read_text()
    assert capsys.readouterr().out == "explain.html\n"
    for title in ("Grad-CAM", "Occlusion", "Guided backprop", "Integrated gradients",
                  "Channel 3 of relu2_1", "The most active channels",
                  "First-layer filters"):  # fmt: skip
        assert title in text, title
    assert "<b>cat</b>" not in text and "&lt;b&gt;cat" in text
    assert "16x16 pixels" in text and "Why “$x$”" in text
    assert set(re.findall(r'(?:src|href)="([^":]*:)', text)) == {"data:"}
    assert not re.search(r"https?://|@import|url\(", text)
    run("grey.png", "--weights=net.safetensors")  # any mode; the first sheet stays
    assert (place / "explain.html").read_text() == text
    assert "Channel 3" not in (place / "explain-2.html").read_text()


def test_a_picture(place):
    run("clear.png", "--weights=net.safetensors", "--out=why.png", "--class=dog")
    before = (place / "why.png").read_bytes()
    with PIL.Image.open("why.png") as picture:
        picture.load()
        assert picture.width == 1560 and picture.height > 1000
        assert np.asarray(picture.convert("L")).std() > 20  # not an empty page
    with pytest.raises(UserError, match="--overwrite"):
        run("grey.png", "--weights=net.safetensors", "--out=why.png")
    assert (place / "why.png").read_bytes() == before


BAD = {
    "no picture": (["none.png"], "none.png: there is no such file"),
    "text": (["notes.txt"], "notes.txt is no readable picture: it has no format"),
    "torn": (["torn.png"], "torn.png is no readable picture: "),
    "class": (["clear.png", "--class=dig"], "--class='dig' is none of the 3 .* dog"),
    "number": (["clear.png", "--class=3"], "a number from 0 to 2"),
    "channel": (["clear.png", "--channel=relu2_1"], "is not LAYER:NUMBER"),
    "layer": (["clear.png", "--channel=relu9_1:2"], "did you mean relu2_1"),
    "channels": (["clear.png", "--channel=relu2_1:5"], "has 5 channels, 0 to 4"),
    "suffix": (["clear.png", "--out=why.pdf"], "must end in .html or .png"),
    "directory": (["clear.png", "--out=no/why.png"], "there is no directory no"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_one_line(place, name, monkeypatch):
    """Told before anything is computed."""
    (place / "notes.txt").write_text("no picture")
    (place / "torn.png").write_bytes((place / "clear.png").read_bytes()[:900])
    monkeypatch.setattr(explain_command, "explain", None)
    arguments, message = BAD[name]
    with pytest.raises(UserError, match=message) as error:
        run(*arguments, "--weights=net.safetensors")
    assert "\n" not in str(error.value)
    assert not list(place.glob("explain*"))


@pytest.mark.parametrize("out", ["why.html", "why.png"])
def test_what_the_sheet_needs_is_missed_before_the_work(place, monkeypatch, out):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("sheet_html", "sheet_png"):
        monkeypatch.delitem(sys.modules, f"vgg_jax.inference.{name}", raising=False)
        monkeypatch.delattr(f"vgg_jax.inference.{name}", raising=False)
    monkeypatch.setattr(explain_command, "explain", None)
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        run("clear.png", "--weights=net.safetensors", f"--out={out}")
