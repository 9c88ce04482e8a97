"""`vgg predict`: what is printed, and what is said of what is no picture."""

import csv
import json

import numpy as np
import PIL.Image
import pytest

from vgg_jax.cli import predict
from vgg_jax.cli.command import parser_of
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.interop.network import random
from vgg_jax.interop.save import save
from vgg_jax.nn.vgg import VGG


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Weights, and a folder of two pictures and a text, one picture below it."""
    place = tmp_path_factory.mktemp("predict")
    names = ("cat", "dog, or not", "frog")
    model = VGG("conv3-8 |", 3, head="compact", conv="lax")
    network = random(model, "unit", size=16, class_names=names)
    save(network, place / "net.safetensors")
    (place / "photos/deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "deeper/b.JPG"):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(place / "photos" / name)
    for name in ("notes.txt", "scan.pdf", ".b.jpg"):
        (place / "photos" / name).write_text("not looked at")
    (place / "photos/deeper/folder.png").mkdir()
    return place


def run(place, *arguments):
    weights = f"--weights={place / 'net.safetensors'}"
    predict.run(parser_of("predict").parse_args([*map(str, arguments), weights]))


def test_json_and_csv_say_the_same(place, capsys):
    run(place, place / "photos", "--json")
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [x["file"][-5:] for x in objects] == ["a.png", "b.JPG"]
    for x in objects:
        shares = [c["probability"] for c in x["classes"]]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True)
        assert abs(sum(shares) - 1) < 1e-5
    run(place, place / "photos", "--csv", "--top=2")
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert header[:3] == ["file", "class_1", "probability_1"] and len(header) == 5
    for row, x in zip(rows, objects, strict=True):
        best = x["classes"][0]
        assert row[:2] == [x["file"], best["class"]]
        assert float(row[2]) == pytest.approx(best["probability"])


def test_bad_files_are_named_and_the_others_classified(place, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(
        RunError, match=r"1 of 2 files .*\n  .*bad.png: it has no format"
    ):
        run(place, bad, place / "photos/a.png")
    assert "a.png: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, message",
    [
        ("-", "not from standard input"),
        ("https://host/x.png", "not from the network"),
        ("nothing.png", "there is no such file"),
        ("{empty}", "there is no picture in this folder"),
    ],
)
def test_what_is_not_read(name, message, place, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(place, name.format(empty=tmp_path))


def test_a_picture_on_a_terminal(place, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    run(place, place / "photos/a.png", "--top=3")
    out = capsys.readouterr().out
    assert out.count("▀") == 12 * 6 and "dog, or not" in out and "█" in out
