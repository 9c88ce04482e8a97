"""The summary, as a user runs it."""

import json
import subprocess
import sys

import pytest

from vgg_jax.cli import summary


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vgg_jax.cli.summary", *arguments],
        capture_output=True,
        text=True,
    )


def test_json_has_the_numbers_of_the_paper():
    """facts.md section 2: C at 224 px with 1000 classes; 13 + 3 weight layers."""
    done = run(
        "--config=configs/vgg16.py",
        "--config.augment.resize=224",
        "--config.model.num_classes=1000",
        "--format=json",
    )
    found = json.loads(done.stdout)
    assert found["total"][0]["parameters"] == 133_638_952
    layers = {row["name"]: row for row in found["layers"]}
    assert layers["fc6"]["parameters"] == 25_088 * 4096 + 4096
    assert layers["conv1_1"]["output"] == "224x224x64"
    assert layers["pool5"]["stride"] == 32
    # 40,000 images, three times the forward pass, two operations a MAC
    total = found["total"][0]
    assert total["training images"] == 40_000
    assert total["PFLOP an epoch"] == pytest.approx(
        6 * total["GMAC an image"] * 40_000 / 1e6, rel=1e-3
    )


def test_compare_and_formats():
    done = run("--config=configs/vgg16.py", "--compare", "--format=markdown")
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + 6 and lines[2].startswith("| A | 11 |")
    depths = [line.split("|")[2].strip() for line in lines[2:]]
    assert depths == ["11", "11", "13", "16", "16", "19"]
    text = run("--config=configs/vgg16.py").stdout
    assert "conv5_3" in text and "receptive field" in text


def test_claims_by_hand():
    """Section 2.3 of the paper: 7x7 has 81% more weights than three 3x3."""
    found = {claim["claim"]: claim for claim in summary.claims()}
    weights = found["three 3x3 layers have 27 C^2 weights, one 7x7 has 49 C^2"]
    assert "81% more" in weights["because"]
    assert not found["1x1 layers save multiplications"]["holds"]
    assert [c["holds"] for c in summary.claims()].count(False) == 1


def test_an_unknown_set_is_told():
    done = run("--config=configs/vgg16.py", "--config.data.name=imagenet2012")
    assert done.returncode == 2
    assert "set augment.resize and model.num_classes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "wrong", ["--config=configs/nothing.py", "--format=xml", "--confg=x", "word"]
)
def test_a_mistake_is_one_line(wrong):
    done = run(wrong)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
