"""The package as users install it: its wheel, its requirements, its public names."""

import inspect
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import vgg_jax

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOOK = """
import vgg_jax
vgg_jax.configure()
import jax
model = vgg_jax.VGG("C", num_classes=10, width=0.125, head="compact")
images = jax.numpy.zeros((2, 32, 32, 3))
variables = jax.jit(model.init)(jax.random.key(0), images)
assert model.apply(variables, images).shape == (2, 10)
print(vgg_jax.__file__)
"""


def lines(name):
    """The requirements of a file, comments and -r left out."""
    text = (ROOT / name).read_text()
    return {x for x in text.splitlines() if x and x[0] not in "#-"}


def test_the_citation_names_this_version():
    """`cffconvert --validate` says whether the file is valid."""
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {vgg_jax.__version__}\n" in text


def test_requirements_are_those_of_the_package():
    extras = PROJECT["optional-dependencies"]
    train = {*PROJECT["dependencies"], *extras["train"], *extras["report"]}
    train |= {*extras["cpu"]}
    names = ("cpu", "export", "interop", "probe", "report", "train")
    dev = {*extras["dev"], *extras["export"], *extras["interop"], *extras["probe"]}
    own = {f"vgg_jax[{name}]" for name in names}
    assert lines("requirements.txt") == train - own
    assert lines("requirements-dev.txt") == dev - own


def test_every_folder_is_a_package():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(pyproject["tool"]["setuptools"]["packages"])
    files = {path.parent.relative_to(ROOT) for path in ROOT.glob("vgg_jax/**/*.py")}
    assert packages == {*(".".join(path.parts) for path in files), "vgg_jax.zoo"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from what git tracks, in a copy: a build leaves files beside its source."""
    source = tmp_path_factory.mktemp("source")
    command = (
        "git ls-files -zco --exclude-standard vgg_jax zoo pyproject.toml README.md"
    )
    finished = subprocess.run(
        command.split(), cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, [*finished.stdout.decode().split("\0"), "LICENSE"]):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (path,) = (source / "dist").glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_checkout(wheel, tmp_path):
    """Unpacked on its own; what it needs is that of the tests' environment."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    assert (site / "vgg_jax" / "py.typed").exists()
    assert (site / "vgg_jax" / "runs" / "templates" / "page.html").exists()
    assert not (site / "configs").exists() and not (site / "tests").exists()
    env = {**os.environ, "PYTHONPATH": str(site)}
    run = lambda *command: subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    finished = run(sys.executable, "-c", LOOK)
    assert finished.returncode == 0, finished.stderr
    assert Path(finished.stdout.strip()) == site / "vgg_jax" / "__init__.py"
    finished = run(str(site / "bin" / "vgg"), "predict", ROOT / "examples/pictures")
    assert finished.stdout.count("%, ") == 40, finished.stderr


@pytest.mark.slow
def test_the_wheel_in_a_fresh_environment(wheel, tmp_path):
    """Needs a package index: installs what the package itself asks for, no extra."""
    venv.create(tmp_path / "env", with_pip=True)
    python, vgg = (tmp_path / "env" / "bin" / name for name in ("python", "vgg"))
    run = lambda *command: subprocess.run(
        [str(word) for word in command], cwd=tmp_path, capture_output=True, text=True
    )
    finished = run(python, "-m", "pip", "install", "--quiet", wheel)
    assert finished.returncode == 0, finished.stderr
    finished = run(python, "-c", LOOK)
    assert finished.returncode == 0, finished.stderr
    assert "138,357,544" in run(vgg, "summary").stdout
    assert run(vgg, "predict", ROOT / "examples/pictures").stdout.count("%, ") == 40
    assert "train" in run(vgg, "--help").stdout
    finished = run(vgg, "train", "--config=configs/quickstart.py")
    assert (
        finished.returncode == 2 and "pip install 'vgg_jax[train]'" in finished.stderr
    )
    finished = run(python, "-c", "import vgg_jax; vgg_jax.train")
    assert "pip install 'vgg_jax[train]'" in finished.stderr


@pytest.mark.parametrize("name", vgg_jax.__all__)
def test_a_public_name_says_what_it_is(name):
    """And has an example in the package's docstring, or in its own."""
    value = getattr(vgg_jax, name)
    package, own = vgg_jax.__doc__ or "", inspect.getdoc(value) or ""
    shown = re.search(rf"(>>> |\.\.\. ).*vgg_jax\.{name}\b|errors\.{name}: ", package)
    assert shown or re.search(rf"(>>> |\.\.\. ).*\b{name}\(", own)
    if callable(value):
        assert inspect.getdoc(value)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(vgg_jax, "no_such" + "_name")
