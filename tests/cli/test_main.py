"""The command line: every mistake is one clear line, and nothing is lost."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vgg_jax.cli import command

ROOT = Path(__file__).resolve().parents[2]


def main(*arguments, workdir, env=()):
    command = [sys.executable, str(ROOT / "main.py"), f"--workdir={workdir}"]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, **dict(env)},
        capture_output=True,
        text=True,
        timeout=120,
    )


QUICK = "--config=configs/quickstart.py"
# arguments -> exit code, what the line must name
MISTAKES = {
    "wrong argument of a config": (
        ("--config=configs/speedrun.py:99",), 2, "choose one of: 94, 90"),
    "argument that a config takes not": (
        ("--config=configs/vgg11.py:D",),
        2,
        "too many positional arguments",
    ),
    "no config": ((), 2, "--config=configs/quickstart.py"),
    "no such config": (("--config=configs/nothing.py",), 2, "nothing.py"),
    "unknown flag": ((QUICK, "--confg.lr=1"), 2, "confg"),
    "stray word": ((QUICK, "lr=0.1"), 2, "lr=0.1"),
    "misspelt field": ((QUICK, "--config.learning_rate=1"), 2, "learning_rate"),
    "misspelt group": ((QUICK, "--config.mdoel.width=1"), 2, "mdoel"),
    "field of a field": ((QUICK, "--config.lr.peak=1"), 2, "lr.peak is no field"),
    "wrong type": ((QUICK, "--config.epochs=many"), 2, "many"),
    "variant": ((QUICK, "--config.model.variant=F"), 2, "A, A-LRN, B, C, D, E"),
    "data set": ((QUICK, "--config.data.name=cifar11"), 2, "cifar11"),
    "split": ((QUICK, "--config.data.train=trian"), 2, "train, test"),
    "large batch": ((QUICK, "--config.batch_size=9999"), 2, "3,200"),
    "negative lr": ((QUICK, "--config.lr=-1"), 2, "lr=-1"),
    "dropout": ((QUICK, "--config.model.dropout=1.5"), 2, "model.dropout=1.5"),
    "zero epochs": ((QUICK, "--config.epochs=0"), 2, "epochs=0"),
    "small images": ((QUICK, "--config.augment.resize=16"), 2, "32x32"),
    "boundary": ((QUICK, "--config.schedule.boundaries=(0,)"), 2, "boundaries"),
    "long warm-up": ((QUICK, "--config.schedule.warmup=1.0"), 2, "schedule.warmup=1"),
    "few classes": ((QUICK, "--config.model.num_classes=5"), 2, "10 classes"),
    "no validation": ((QUICK, "--config.data.validation=none",
                       "--config.test_with=best"), 2, "test_with=last"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, tmp_path, monkeypatch, capfd):
    arguments, code, named = MISTAKES[case]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        command.main(["train", f"--workdir={tmp_path / 'run'}", *arguments])
    assert end.value.code == code
    check_one_line(capfd.readouterr().err, named)


def test_the_program_says_so_too(tmp_path):
    finished = main(QUICK, "--config.batch_size=9999", workdir=tmp_path / "run")
    assert finished.returncode == 2
    check_one_line(finished.stderr, "3,200")


def check_one_line(stderr, named):
    assert "Traceback" not in stderr
    errors = [x for x in stderr.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1
    assert named in stderr


@pytest.mark.slow
def test_a_mistake_mended_runs_in_the_same_workdir(tmp_path):
    wrong = main(QUICK, "--config.data.train=trian", workdir=tmp_path / "run")
    assert wrong.returncode == 2
    short = ("--config.epochs=4", "--config.data.train=train[:200]")
    right = main(QUICK, *short, workdir=tmp_path / "run")
    assert right.returncode == 0, right.stderr
    assert "test top-1" in right.stdout


@pytest.mark.slow
def test_a_variant_has_a_workdir_of_its_own(tmp_path):
    """`configs/vgg16.py:D` must not meet the run of configuration C."""
    config = f"--config={ROOT / 'configs' / 'vgg16.py'}:D"
    tiny = ["data.name=cifar10_sample", "data.train=train[:160]", "epochs=1",
            "model.width=0.05", "model.hidden=(8,)"]  # fmt: skip
    finished = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), config]
        + [f"--config.{field}" for field in tiny],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "runs" / "vgg16-D" / "result.json").exists()


@pytest.mark.slow
def test_an_empty_workdir_is_the_default(tmp_path):
    """`--workdir=$UNSET` must not train into the current directory."""
    tiny = ["data.train=train[:160]", "epochs=1",
            "model.variant=conv3-8 | conv3-8 |"]  # fmt: skip
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    command = [sys.executable, str(ROOT / "main.py"), config, "--workdir="]
    finished = subprocess.run(
        [*command, *[f"--config.{field}" for field in tiny]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    result = json.loads((tmp_path / "runs/quickstart/result.json").read_text())
    assert result["environment"]["command"].startswith("python ")


def test_an_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("mine")
    finished = main(QUICK, workdir=tmp_path / "file" / "run")
    assert finished.returncode == 1
    assert re.fullmatch(r"error: workdir .*--workdir=DIR\n", finished.stderr)
    assert (tmp_path / "file").read_text() == "mine"


def test_no_network_and_no_data(tmp_path):
    """An empty PATH has no npm; the proxy leads nowhere."""
    nowhere = "http://127.0.0.1:9"
    env = {
        "PATH": str(tmp_path),
        "TFDS_DATA_DIR": str(tmp_path / "data"),
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }
    finished = main("--config=configs/vgg16.py", workdir=tmp_path / "run", env=env)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    for named in ("archive", "npm", "TFDS_DATA_DIR", "quickstart"):
        assert named in finished.stderr


def test_help_names_the_config():
    finished = subprocess.run(
        [sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert "--config" in finished.stdout and "--workdir" in finished.stdout
    assert "Traceback" not in finished.stderr
