"""Every command and program in README, docs and --help works as it is written there.

Commands run in a copy of the checkout whose `.venv` is the environment of the tests.
A training that would take hours is stopped by a signal after its first steps, and must
save itself. Of the README's two commands, which set an environment up, `.ci/run` runs
the second.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vgg_jax.cli import command
from vgg_jax.data import stored
from vgg_jax.errors import UserError
from vgg_jax.runs import checkpoint_record

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S)
]
WRITTEN = [
    line
    for language, text in BLOCKS
    if language == ""
    for line in text.splitlines()
    if line.startswith(".venv/bin/python ")
]
EXAMPLES = {
    name: re.findall(
        r"^    (python [^\\\n]*(?:\\\n[^\\\n]*)*)$",
        command.parser_of(name).description,
        re.M,
    )
    for name in command.COMMANDS
}
HELP = [
    ".venv/bin/" + example.replace("\\\n", "")
    for examples in EXAMPLES.values()
    for example in examples
]
COMMANDS = list(dict.fromkeys(re.sub(r" +", " ", x) for x in [*WRITTEN, *HELP]))
FIRST, OTHER = "--process_id=0", "--process_id=1"  # of two, which need one another
COMMANDS = [command for command in COMMANDS if OTHER not in command]
PROGRAMS = list(
    dict.fromkeys(text for language, text in BLOCKS if language == "python")
)
FRONT_DOOR = [text for text in PROGRAMS if text in (ROOT / "README.md").read_text()]
QUICK = "vgg_jax summary"
FOLDER = next(command for command in COMMANDS if "vgg_jax folder" in command)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme") / "vgg_jax"
    kept = ("vgg_jax", "configs", "data", "zoo", "main.py", "README.md")
    path.mkdir()
    for name in kept:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, path / name)
    shutil.copytree(ROOT / "examples/pictures", path / "examples/pictures")
    (path / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    if (modules := ROOT / "benchmarks/envs/node_modules").exists():
        (path / "node_modules").symlink_to(modules, target_is_directory=True)
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (path / "photos" / label).mkdir(parents=True)
        for i in range(400):
            pixels = rng.integers(0, 256, (70, 80 + i % 9, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(path / f"photos/{label}/{i}.png")
    PIL.Image.fromarray(pixels).save(path / "photo.jpg")
    return path


@pytest.fixture(scope="module")
def environ(tmp_path_factory):
    """CIFAR-10 is linked, not written: the folder of photos is written beside it."""
    try:
        found = Path(stored.find("cifar10", report=lambda text: None).data_path)
    except UserError as error:
        pytest.skip(f"needs CIFAR-10: {error}")
    root = tmp_path_factory.mktemp("data")
    (root / "cifar10").symlink_to(found.parent, target_is_directory=True)
    return {**os.environ, "TFDS_DATA_DIR": str(root)}


def test_there_are_commands_and_programs():
    assert len(COMMANDS) >= 10 and FRONT_DOOR
    assert all(EXAMPLES.values()), "a command's --help has no example"


@pytest.mark.parametrize("command", [c for c in COMMANDS if QUICK in c])
def test_a_quick_command(command, checkout):
    finished = subprocess.run(
        command, shell=True, cwd=checkout, capture_output=True, text=True
    )
    assert finished.returncode == 0 and finished.stdout, finished.stderr


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, marks=() if text in FRONT_DOOR else pytest.mark.slow)
        for text in PROGRAMS
    ],
)
def test_a_program(text, checkout):
    finished = subprocess.run(
        [sys.executable, "-c", text], cwd=checkout, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def stopped_after_first_steps(command, checkout, environ):
    """Output and status of a command that is sent SIGTERM once it trains."""
    if FIRST in command:
        other = shlex.split(command.replace(FIRST, OTHER))
        partner = subprocess.Popen(other, cwd=checkout, env=environ)
    with subprocess.Popen(
        shlex.split(command),
        cwd=checkout,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        alarm = threading.Timer(600, process.terminate)  # a sweep passes it on
        alarm.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "img/s" in line:
                process.send_signal(signal.SIGTERM)
                break
        lines += process.stdout.readlines()
        alarm.cancel()
    if FIRST in command:
        assert partner.wait(60) == process.returncode
    return "".join(lines), process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if QUICK not in c])
def test_a_command(command, checkout, environ):
    if "--trials" in command:
        pytest.importorskip("optuna", reason="pip install optuna")
    if re.search("--to=(onnx|html)", command):
        pytest.importorskip("jax2onnx", reason="pip install 'vgg_jax[onnx]'")
    if "--to=html" in command and not (checkout / "node_modules").exists():
        pytest.skip("npm install --prefix benchmarks/envs onnxruntime-web@1.30.0")
    photos = Path(environ["TFDS_DATA_DIR"], "photos")
    if "data.name=photos" in command and not photos.exists():
        stopped_after_first_steps(FOLDER, checkout, environ)
    if command == FOLDER and photos.exists():
        shutil.rmtree(photos)
    of_a_run = r"(?:--workdir|--weights|init.path)=runs/(\w+)"  # which there must be
    if re.search("vgg_jax (report|score|export|explain)|init.path", command):
        for name in re.findall(of_a_run, command):
            if not (checkout / "runs" / name / "checkpoints").exists():
                first = f"{sys.executable} main.py --config=configs/{name}.py"
                stopped_after_first_steps(first, checkout, environ)
    if "vgg_jax evaluate --weights=runs/photos" in command:  # stopped early, above
        last = checkpoint_record.latest(checkout / "runs/photos/checkpoints")
        command = command.replace("runs/photos", f"runs/photos/checkpoints/{last}")
    for name in ("speedrun.*", "classify.*"):
        for written in checkout.glob(name):  # what another export left
            written.unlink()
    output, status = stopped_after_first_steps(command, checkout, environ)
    assert "Traceback" not in output
    if re.search("main.py|vgg_jax (train|sweep)", command) and status:
        assert "saved; the same command resumes" in output
        assert status == (130 if "sweep" in command else 143), output
    else:
        assert status == 0, output
