"""The summary, as a user runs it."""

import json
import subprocess
import sys

import pytest

from vgg_jax.nn.claims import claims


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vgg_jax", "summary", *arguments],
        capture_output=True,
        text=True,
    )


def test_json_has_the_numbers_of_the_paper():
    """docs/facts.md section 2: C at 224 px with 1000 classes; 13 + 3 weight layers."""
    finished = run(
        "--config=configs/vgg16.py",
        "--config.augment.resize=224",
        "--config.model.num_classes=1000",
        "--format=json",
    )
    shown = json.loads(finished.stdout)
    assert shown["total"][0]["parameters"] == 133_638_952
    layers = {row["name"]: row for row in shown["layers"]}
    assert layers["fc6"]["parameters"] == 25_088 * 4096 + 4096
    assert layers["conv1_1"]["output"] == "224x224x64"
    assert layers["pool5"]["stride"] == 32
    # 40,000 images, three times the forward pass, two operations per MAC
    total = shown["total"][0]
    assert total["training images"] == 40_000
    assert total["PFLOP per epoch"] == pytest.approx(
        6 * total["GMAC per image"] * 40_000 / 1e6, rel=1e-3
    )


def test_without_a_config_it_is_the_papers():
    """docs/facts.md section 2."""
    total = json.loads(run("--variant=E", "--format=json").stdout)["total"][0]
    assert total["parameters"] == 143_667_240
    assert total["GMAC per image"] == pytest.approx(19.632, abs=5e-4)
    small = run("--size=32", "--num_classes=10", "--head=compact", "--format=json")
    assert json.loads(small.stdout)["total"][0]["parameters"] == 14_719_818


def test_compare_and_formats():
    finished = run("--config=configs/vgg16.py", "--compare", "--format=markdown")
    lines = finished.stdout.splitlines()
    assert len(lines) == 2 + 6 and lines[2].startswith("| A | 11 |")
    depths = [line.split("|")[2].strip() for line in lines[2:]]
    assert depths == ["11", "11", "13", "16", "16", "19"]
    text = run("--config=configs/vgg16.py").stdout
    assert "conv5_3" in text and "receptive field" in text


def test_claims_by_hand():
    """Section 2.3 of the paper: 7x7 has 81% more weights than three 3x3."""
    by_claim = {claim["claim"]: claim for claim in claims()}
    weights = by_claim["three 3x3 layers have 27 C^2 weights, one 7x7 has 49 C^2"]
    assert "81% more" in weights["because"]
    assert not by_claim["1x1 layers save multiplications"]["holds"]
    assert [c["holds"] for c in claims()].count(False) == 1


def test_an_unknown_set_is_told():
    finished = run("--config=configs/vgg16.py", "--config.data.name=imagenet2012")
    assert finished.returncode == 2
    assert "set augment.resize and model.num_classes" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "wrong",
    ["--config=configs/nothing.py", "--format=xml", "--confg=x", "word", "--size=31"]
    + ["--variant=F", "--config.lr=1", "--claims --size=32", "--compare --variant=A"]
    + ["--config=configs/vgg16.py --head=compact", "--claims --config.lr=1"],
)
def test_a_mistake_is_one_line(wrong):
    finished = run(*wrong.split())
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
