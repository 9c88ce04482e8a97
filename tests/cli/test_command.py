"""The table of commands, its help, and config files read without global flags."""

import subprocess
import sys
from pathlib import Path

import pytest

import vgg_jax
from vgg_jax.cli import command, config_file
from vgg_jax.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_help_lists_every_command(capsys):
    for argv in ([], ["--help"], ["-h"]):
        command.main(argv)
        shown = capsys.readouterr().out
        for name, about in command.COMMANDS.items():
            assert f"  {name} " in shown and about in shown
    command.main(["--version"])
    assert capsys.readouterr().out == f"{vgg_jax.__version__}\n"


def test_every_module_of_the_folder_is_a_command_or_serves_them():
    modules = {p.stem for p in (ROOT / "vgg_jax" / "cli").glob("[a-z]*.py")}
    assert modules - command.COMMANDS.keys() == {"command", "config_file"}


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help_of_a_command(name, capsys):
    with pytest.raises(SystemExit) as finished:
        command.main([name, "--help"])
    shown = capsys.readouterr().out
    assert finished.value.code == 0
    assert shown.startswith(f"usage: vgg {name} ")
    assert f"\n    python -m vgg_jax {name}" in shown  # run by tests/test_commands.py


@pytest.mark.parametrize(
    "argv, said",
    [
        (["fly"], "train, summary, score, report, sweep, folder"),
        (["report"], "--workdir"),
        (["report", "--wrkdir=x"], "--workdir"),
        (["score", "--workdir=x", "--config.lr=1"], "unknown option '--config.lr=1'"),
        (["summary", "--size=many"], "many"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(argv, said, capsys):
    with pytest.raises(SystemExit) as finished:
        command.main(argv)
    shown = capsys.readouterr().err
    assert finished.value.code == 2
    assert shown.startswith("error: ") and said in shown and shown.count("\n") == 1


def test_main_py_is_train(tmp_path):
    by_file, by_module = (
        run(*program, "--help").stdout
        for program in (["main.py"], ["-m", "vgg_jax", "train"])
    )
    assert by_file == by_module != ""


PROGRAM = """
import sys
from absl import flags
flags.DEFINE_string("config", "mine", "a flag of the program's own")
sys.argv = ["program", "--config.lr=9", "--config=theirs"]
from vgg_jax.cli import config_file, summary, train
config = config_file.load({config!r}, ["--config.epochs=3"])
flags.FLAGS(["program"])
print(config.lr, config.epochs, config.model.variant, flags.FLAGS.config)
"""


def test_in_a_program_with_a_config_flag_and_arguments_of_its_own(tmp_path):
    """And from another directory: a config imports its neighbours all the same."""
    (tmp_path / "vgg_jax").symlink_to(ROOT / "vgg_jax")
    config = f"{ROOT / 'configs' / 'vgg16.py'}:E"
    finished = run("-c", PROGRAM.format(config=config), cwd=tmp_path)
    assert finished.stdout.split() == ["0.01", "3", "E", "mine"], finished.stderr


@pytest.mark.parametrize(
    "argv, missing, extra",
    [
        (["train", "--config=configs/vgg16.py"], "ml_collections", "train"),
        (["summary", "--config=configs/vgg16.py"], "ml_collections", "train"),
        (["folder", "--help"], "tensorflow_datasets", "train"),
        (["report", "--workdir=x"], "matplotlib", "report"),
    ],
)
def test_a_command_without_its_extra_names_it(argv, missing, extra, tmp_path):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from vgg_jax.cli import command; command.main({argv})"
    )
    finished = run("-c", code)
    assert finished.returncode == 2
    assert f"pip install 'vgg_jax[{extra}]'" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_a_config_of_its_own_says_what_is_wrong():
    """What the file raises, not the loader's traceback of it."""
    with pytest.raises(ConfigError) as error:
        config_file.load("configs/speedrun.py:99")
    expected = "configs/speedrun.py='99' is unknown; choose one of: 94, 90"
    assert str(error.value) == expected
