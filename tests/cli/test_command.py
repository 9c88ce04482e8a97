"""The table of commands, its help, and config files read without global flags."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import vgg_jax
from configs import default
from vgg_jax.cli import command, config_file
from vgg_jax.errors import ConfigError
from vgg_jax.training.config import names

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
    serving = {
        "command",
        "config_file",
        "error_table",
        "settings_check",
        "weights_option",
    }
    assert modules - command.COMMANDS.keys() == serving


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
        (["fly"], "train, summary, plan, score, evaluate, predict, explain, report,"),
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


def test_every_field_is_explained(capsys):
    """As configs/default.py writes it; each as it can be typed."""
    for option in ("--help_config", "--helpfull"):
        with pytest.raises(SystemExit) as finished:
            command.main(["train", option])
        shown = capsys.readouterr().out
        assert finished.value.code == 0
        typed = shown.splitlines()[::2]
        assert [line.partition("=")[0] for line in typed] == [
            f"--config.{name}" for name in names()
        ]
    typed = shlex.split(" ".join(typed))
    written = default.get_config()
    assert config_file.load("default", typed).to_dict() == written.to_dict()
    assert all(comment for _, comment in config_file.described().values())
    assert config_file.described()["data.validation"][1].endswith("or a TFDS split.")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_main_py(option):
    finished = run("main.py", option)
    assert finished.returncode == 0 and finished.stdout.startswith("usage: vgg train")


def test_without_a_config_the_configs_are_named(capsys):
    with pytest.raises(SystemExit) as finished:
        command.main(["train"])
    shown = capsys.readouterr().err
    assert finished.value.code == 2 and shown.count("\n") == 1
    assert all(f" {name}" in shown for name in config_file.available())
    assert "vgg16_bn" in config_file.available()


def test_a_config_by_its_name():
    assert config_file.load("vgg16:E").model.variant == "E"
    assert config_file.load("vgg16.py").model.variant == "C"


def test_a_config_by_its_name_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file.load("vgg16").model.variant == "C"
    (tmp_path / "configs").mkdir()
    own = "def get_config():\n    return ConfigDict({'mine': 1})\n"
    (tmp_path / "configs/vgg16.py").write_text(f"from {IMPORT}\n{own}")
    assert config_file.load("vgg16").mine == 1


HEAD = "from configs import default\n\n\ndef get_config():\n"
HEAD += "    config = default.get_config()\n"
IMPORT = "ml_collections import ConfigDict"
# What an own config file holds -> what is said of it besides its name.
OWN = {
    "": "defines no get_config",
    "get_config = 3": "defines no get_config",
    HEAD + "    config.lr = 0.1": "returns None, .* `return config`",
    HEAD + "    return config.to_dict()": "returns {.* `return config`",
    HEAD + "    config.epochs = 'x'": "line 6: TypeError: .*epochs",
    HEAD + "    config.lr = = 1": "line 6: SyntaxError: invalid syntax",
    HEAD + "    config.lr = 1 / 0": "line 6: ZeroDivisionError: division by zero",
    HEAD + "    config.lr = config.rate": "line 6: AttributeError: .*rate",
    "import nothing_at_all": "line 1: ModuleNotFoundError: .*nothing_at_all",
    "from ml_collections import nothing": "line 1: ImportError: .*nothing",
    "\0": "null bytes",
    "def get_config(a): ...": "missing a required argument: 'a': write .*:<argument>",
}


@pytest.mark.parametrize("text", OWN)
def test_a_wrong_config_file_is_told_with_its_line(text, tmp_path):
    file = tmp_path / "own" / "mine.py"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigError, match=OWN[text]) as error:
        config_file.load(str(file))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config, said",
    [
        ("vgg17", "there is no file vgg17; did you mean vgg1[0-9]"),
        ("configs", "configs is a directory; there are: blog, .*quickstart"),
        ("quickstart.py:Z", "too many positional arguments: leave out :Z"),
    ],
)
def test_a_config_that_is_not_there(config, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=said):
        config_file.load(config)


@pytest.mark.parametrize(
    "setting, said",
    [
        ("--config.learning_rate=1", "learning_rate is no field; there are: batch_siz"),
        ("--config.epoch=1", "did you mean epochs"),
        ("--config.dropout=0.1", "did you mean model.dropout"),
        ("--config.mdoel.width=1", "did you mean model.width"),
        ("--config.lr.peak=1", "lr.peak is no field: did you mean lr?"),
        ("--config.nets.qqq=1", "there are: .*, views, augment, checkpoint, data, "),
        ("--config.model.hidden[0]=1", "did you mean model.hidden"),
        ("--noconfig.model.batchnorm", "did you mean model.batch_norm"),
        ("--config.model=3", "model is a group of fields: .*model.width"),
        ("--config.schedule.warmup_epochs=1", "now schedule.warmup, a share of the ep"),
        ("--config.=1", "is no field"),
    ],
)
def test_a_misspelt_field_is_told(setting, said):
    with pytest.raises(ConfigError, match=said) as error:
        config_file.load("quickstart", [setting])
    assert "\n" not in str(error.value)


def test_windows_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as exit:
        command.main(["train", "--config=configs/quickstart.py"])
    told = capsys.readouterr().err
    assert exit.value.code == 1 and "Linux and macOS" in told and told.count("\n") == 1


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
