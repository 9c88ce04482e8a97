"""The summary, as a user runs it."""

import contextlib
import io
import json
from types import SimpleNamespace

import pytest

from configs import default
from vgg_jax.cli import command, config_file, summary
from vgg_jax.errors import ConfigError
from vgg_jax.nn import claims as claims_module
from vgg_jax.nn.architecture import layers
from vgg_jax.nn.claims import claims
from vgg_jax.training.config import resolve


def run(*arguments):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command.main(["summary", *arguments])
        except SystemExit as end:
            code = end.code
    return SimpleNamespace(
        returncode=code, stdout=out.getvalue(), stderr=err.getvalue()
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


@pytest.mark.parametrize(
    "train, validation, images",
    [
        ("train", "sklearn_80_20", (40_000, 10_000)),
        ("train[:300]", "sklearn_80_20", (240, 60)),
        ("train[:90%]", "train[90%:]", (45_000, 5_000)),
        ("train[:98%]", "train[-2%:-1%]", (49_000, 500)),
        ("train[100:150]+test[:7]", "none", (57, 0)),
    ],
)
def test_slices_count(train, validation, images):
    fields = [f"--config.data.train={train}", f"--config.data.validation={validation}"]
    constant = "--config.schedule.name=constant"  # of which "none" asks nothing
    config = resolve(config_file.load("blog", [*fields, constant]))
    model, size = summary.network(config)
    costs = summary.cost_table(model, size)
    total = summary.totals(costs, "float32", config)
    assert (total["training images"], total["validation images"]) == images
    assert total["PFLOP per epoch"] == pytest.approx(
        6 * total["GMAC per image"] * images[0] / 1e6, rel=1e-3, abs=1e-6
    )


def test_a_wrong_slice_is_told():
    for fields, said in (
        ({"data.train": "trian"}, "data.train='trian' is not a split"),
        ({"data.train": "train[:0]"}, "empty"),
        ({"data.validation": "train[:9]"}, "share 9 images"),
    ):
        config = default.get_config()
        config.update_from_flattened_dict(fields)
        with pytest.raises(ConfigError, match=said):
            summary.images_of(resolve(config))


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


# Section 2.3 of the paper, and the blog's text (docs/facts.md section 1), by hand.
HOLDS = {
    "two 3x3 convolutions see 5x5": True,  # 1 + 2 + 2
    "three 3x3 convolutions see 7x7": True,  # 1 + 2 + 2 + 2
    # 49 / 27 = 1.81
    "three 3x3 layers have 27 C^2 weights, one 7x7 has 49 C^2, 81% more": True,
    # C = 64: 3 * 577 * 64 = 110,784 and 3137 * 64 = 200,768
    "with biases they have 3 (9 C + 1) C and (49 C + 1) C parameters": True,
    # 3 -> 64: 28 * 64 + 2 * 577 * 64 = 75,648, but 3 * 28 * 64 = 5,376
    "three 3x3 layers have 3 (9 C_prev + 1) C_curr parameters": False,
    "so a stack of 3x3 costs fewer multiplications than one 7x7": True,  # 27 < 49
    # the paper's: C and B both see 140 pixels; C has three layers more
    "a 1x1 layer adds a non-linearity without changing what is seen": True,
    "1x1 layers save multiplications": False,  # 11.771 > 11.308 GMAC, section 2
    # 144 * 27 * 5 = 19,440; 144 * 3 + 144 * 9 * 5 = 432 + 6,480 = 6,912
    "a 1x1 layer before five 3x3 filters turns the 19,440 multiplications of a "
    "12x12x3 input into 6,912": True,
}
NUMBERS = (
    "5, 7, 81%, 110,784 200,768, 75,648 5,376 9,472, 27 C^2 49 C^2, 140, 11.77, 432"
)


def test_claims_by_hand():
    rows = claims()
    assert {row["claim"]: row["holds"] for row in rows} == HOLDS
    for row, numbers in zip(rows, NUMBERS.split(", "), strict=True):
        assert all(number in row["because"] for number in numbers.split(" "))


def test_every_verdict_follows_from_the_networks(monkeypatch):
    """In worlds where other layers are meant, each claim turns at least once."""
    worlds = (
        lambda table: table.replace("conv3", "conv9"),  # 3x3 is large
        lambda table: table.replace("conv1-1 ", "conv3-1 "),  # 1x1 is not
        lambda table: {"C": "D"}.get(table, table),  # nor is C's
        lambda table: {"C": "A"}.get(table, table),  # C is small
    )
    turned = set()
    for world in worlds:
        with monkeypatch.context() as patch:
            other = lambda table, world=world, **how: layers(world(table), **how)
            patch.setattr(claims_module, "layers", other)
            for row in claims():
                if row["holds"] != HOLDS[row["claim"]]:
                    turned.add(row["claim"])
    formula = "three 3x3 layers have 3 (9 C_prev + 1) C_curr parameters"
    assert turned == HOLDS.keys() - {formula}


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
