"""`vgg evaluate --protocol`: what is printed and written of pictures of any size."""

import csv

import numpy as np
import PIL.Image
import pytest

from vgg_jax.cli import evaluate
from vgg_jax.cli.command import parser_of
from vgg_jax.errors import ConfigError
from vgg_jax.interop.network import random
from vgg_jax.interop.save import save
from vgg_jax.nn.vgg import VGG


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Weights that know dark from light, and a folder of both."""
    place = tmp_path_factory.mktemp("evaluate")
    model = VGG("conv3-4 |", 2, hidden=(), conv="lax")
    for seed in (0, 1):
        network = random(model, "unit", size=8, seed=seed)
        network = network.replace(class_names=("dark", "light"))
        layers = network.variables["params"]
        kernel = np.abs(layers["conv1_1"]["kernel"])  # more light, larger activations
        last = np.stack([np.zeros(64), np.ones(64)], 1).astype(np.float32) * (1 + seed)
        params = {
            "conv1_1": {"kernel": kernel, "bias": np.zeros(4, np.float32)},
            "fc8": {"kernel": last, "bias": np.float32([5.0, 0.0])},
        }
        named = network.replace(variables={"params": params})
        save(named, place / f"{seed}.safetensors")
    numbers = np.random.default_rng(0)
    for label, light in (("dark", 0), ("light", 215)):
        (place / "photos" / label).mkdir(parents=True)
        for i in range(3):
            size = (*numbers.integers(8, 20, 2), 3)
            pixels = numbers.integers(light, light + 2, size).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(place / "photos" / label / f"{i}.png")
    (place / "photos" / "dark" / "2.png").write_bytes(b"no picture")
    return place


def run(place, *arguments, weights=(0,)):
    files = ",".join(str(place / f"{i}.safetensors") for i in weights)
    data = f"--data=folder:{place / 'photos'}"
    parsed = parser_of("evaluate").parse_args([f"--weights={files}", data, *arguments])
    evaluate.run(parsed)


def test_errors_damaged_pictures_and_programs_are_told(place, capsys):
    run(place, "--protocol=dense+crops", "--scales=8,12", "--flip", weights=(0, 1))
    said = capsys.readouterr().out
    assert "\nfolder:" in "\n" + said and "6 pictures, dense+crops" in said
    rows = [line.split() for line in said.splitlines() if "8, 12" in line]
    # One of six cannot be read, and all others are told apart.
    assert [row[-2:] for row in rows] == [["16.67", "16.67"]] * 3
    assert "1 damaged pictures count as errors" in said
    assert "train/dark/2.png: it has no format" in said
    assert "programs compiled" in said


def test_every_prediction_is_written_to_a_new_file(place, capsys, tmp_path):
    file = tmp_path / "all.csv"
    run(place, "--protocol=center", f"--csv={file}")
    with open(file, newline="") as opened:
        header, *rows = csv.reader(opened)
    assert header == ["picture", "label", *"class_1 posterior_1".split()] + [
        "class_2",
        "posterior_2",
    ]
    by_name = {row[0]: row[1:] for row in rows}
    assert len(rows) == len(by_name) == 6
    assert by_name["train/dark/2.png"][0] == "damaged"
    for name, (label, guess, posterior, *_) in by_name.items():
        if label != "damaged":
            assert name.split("/")[1] == label == guess
            assert 0.5 < float(posterior) <= 1
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="exists: name a new file"):
        run(place, "--protocol=center", f"--csv={file}")
    assert file.read_bytes() == before
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--flip"], "--flip needs --protocol"),
        (["--scales=256"], "--scales needs --protocol"),
        (["--csv=x.csv"], "--csv needs --protocol"),
        (["--protocol=dense", "--csv=nowhere/x.csv"], "no directory .*nowhere"),
        (["--protocol=dense", "--weights=,"], "no networks to evaluate"),
        (["--protocol=dense", "--views=2"], "give one of them"),
        (["--protocol=dense", "--scales=8,large"], "must be pixels"),
        (["--protocol=dense", "--scales=4"], "4 pixels are fewer than the 8"),
        (["--protocol=densely"], "choose one of: center"),
        (["--protocol=dense", "--split=test"], "not a split of folder:.*has: train"),
    ],
)
def test_wrong_options_name_the_remedy(place, arguments, said):
    with pytest.raises(ConfigError, match=said):
        run(place, *arguments)


def test_other_classes_are_named(place, tmp_path):
    for label in ("dark", "dusk", "light"):
        (tmp_path / label).mkdir()
        PIL.Image.new("RGB", (9, 9)).save(tmp_path / label / "0.png")
    data = ["--protocol=dense", f"--data=folder:{tmp_path}"]
    with pytest.raises(ConfigError, match="2 classes, not 3 classes"):
        run(place, *data)
