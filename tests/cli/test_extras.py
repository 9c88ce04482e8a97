"""What docs/install.md says an extra is for, it is enough for.

Every other package that is installed here is hidden from the command, as if a user had
installed `vgg_jax[extra]` alone.
"""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN = ROOT / "results" / "vgg11_bn"
NEED_TRAINING = "score", "evaluate", "sweep", "plan", "folder"
HIDING = """import sys
for name in {hidden}:
    sys.modules[name] = None
from vgg_jax.cli import command
for argv in {commands}:
    try:
        command.main(argv)
    except SystemExit as end:  # of --help
        assert not end.code, argv
"""


def needed_by(extra):
    """Distributions that `pip install vgg_jax[extra]` brings, by its metadata."""
    found, ahead = {("vgg-jax",)}, [*PROJECT["dependencies"]]
    ahead += PROJECT["optional-dependencies"].get(extra, [])
    while ahead:
        asked = Requirement(ahead.pop())
        if asked.marker and not asked.marker.evaluate({"extra": ""}):
            continue
        if asked.name == "vgg_jax":
            for name in asked.extras:
                ahead += PROJECT["optional-dependencies"][name]
            continue
        key = asked.name.lower().replace("_", "-")
        if (key, *asked.extras) in found:
            continue
        found.add((key, *asked.extras))
        try:
            needs = importlib.metadata.requires(asked.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or any(
                need.marker.evaluate({"extra": name}) for name in ("", *asked.extras)
            ):
                need.marker = None
                ahead.append(str(need))
    return {name for name, *_ in found}


def hidden_from(extra):
    brought = needed_by(extra)
    return sorted(
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & brought
    )


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")


@pytest.mark.slow  # the gate runs it
@pytest.mark.parametrize(
    "extra, commands",
    [
        (
            "",
            [
                ["summary"],
                ["predict", "a.png"],
                ["export", "--to=safetensors", "--out=n.safetensors"],
            ],
        ),
        (
            "report",
            [
                ["explain", "a.png"],
                ["report", f"--workdir={RUN}", "--out=page.html"],
            ],
        ),
        ("export", [["export", "--to=stablehlo"]]),
        (
            "train",
            [
                ["summary", f"--config={ROOT}/configs/vgg16.py"],
                *([name, "--help"] for name in NEED_TRAINING),
            ],
        ),
    ],
)
def test_commands_need_no_more_than_their_extra(extra, commands, picture, tmp_path):
    code = HIDING.format(hidden=hidden_from(extra), commands=commands)
    command = [sys.executable, "-c", code]
    where = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}}
    finished = subprocess.run(command, capture_output=True, text=True, **where)
    assert finished.returncode == 0, finished.stderr[-2000:]


def test_what_is_hidden():
    """So that the test above can fail: by name, not by the same code."""
    assert {"tensorboardX", "jinja2", "tensorflow_datasets"} <= {*hidden_from("")}
    assert "jinja2" not in hidden_from("report")
    assert {"jax", "flax", "PIL"}.isdisjoint(hidden_from(""))
