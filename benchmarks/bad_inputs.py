"""What wrong inputs get: each is given to the program, and what it says is the table.

    python -m benchmarks.bad_inputs > results/bad_inputs.md

A wrong input is told before anything is trained. "status" is the exit status of the
command, "s" the seconds it took in a process that has imported everything.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ("train", "--config=quickstart")
SMALL = ("--config.model.variant=conv3-8 |", "--config.data.train=train[:99]")
OWN = "from configs import default\ndef get_config():\n    c = default.get_config()\n"

# Wrong config files, by what is wrong.
CONFIGS = {
    "a misspelt field": OWN + "    c.epoch = 7\n    return c\n",
    "a wrong type": OWN + "    c.lr = (1, 2)\n    return c\n",
    "a missing field": OWN + "    del c.lr\n    return c\n",
    "a syntax error": OWN + "    c.lr = = 1\n",
    "an import that fails": "import nothing_at_all\n",
    "no return": OWN + "    c.lr = 0.1\n",
}

# Wrong settings of a right config.
SETTINGS = (
    "epoch=7",
    "model.dropout=0.3",
    "optimizer.bias_scale=0.0",
    "schedule.boundaries=(60,)",
    "augment.cutout=1000",
    "augment.crop=100",
    "augment.resize=100000",
    "model.width=1e-9",
    "model.width=1000.0",
    "model.num_classes=1000000000",
    "model.hidden=(64,'x')",
    "epochs=100000000000000000000",
    "optimizer.weight_decay=1e6",
    "schedule.warmup_epochs=3",
    "data.name=../../etc",
    "data.name=cifar11",
    "data.train=train[:150%]",
)

# Other commands that are wrong.
COMMANDS = (
    ("train", "--config=vgg17"),
    ("train", "--config=configs"),
    ("train", "--config=quickstart.py:Z"),
    ("train",),
    ("trian", "--config=quickstart"),
    (*TRAIN, "--workdir=runs/[1]"),
    (*TRAIN, "--config.data.name=cifar10", "--config.data.data_dir=misspelt"),
    (*TRAIN, "--config.data.name=cifar10", "--config.data.archive_dir=missing"),
    ("sweep", "--config=quickstart", "--config.lr=0.1,fast"),
    ("sweep", "--config=quickstart", "--config.lr=0.1,0.2", "--devices=gpu"),
    (
        "sweep",
        "--config=quickstart",
        "--config.lr=0.1,0.2",
        "--config.data.validation=none",
    ),
    ("score", "--workdir=nowhere"),
    ("report", "--workdir=nowhere"),
    ("folder", "--images=pictures", "--name=" + "n" * 300, "--data_dir=tfds"),
    ("folder", "--images=pictures", "--name=pets", "--data_dir=tfds"),
    ("folder", "--images=lines", "--name=pets", "--data_dir=tfds"),
    ("summary", "--size=3"),
)

# Inputs that were refused or went wrong, and are right.
RIGHT = (
    ("train", "--help"),
    ("train", "-h"),
    ("train", "--help_config"),
    (*TRAIN, *SMALL, "--config.epochs=1"),
    ("folder", "--images=pictures", "--name=pets", "--data_dir=tfds", "--skip_bad"),
)


def _pictures(directory: Path) -> None:
    """Makes folders of pictures, one of them torn, and one with a name of two lines."""
    for name in ("cat", "dog"):
        (directory / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            grey = np.full((8, 8), 1000 * i, np.uint16)  # 16 bits
            file = directory / "pictures" / name / f"{i}.png"
            PIL.Image.fromarray(grey).save(file)
    file.write_bytes(file.read_bytes()[:40])
    for name in ("cat", "big\ndog"):
        (directory / "lines" / name).mkdir(parents=True)
        PIL.Image.new("RGB", (8, 8)).save(directory / "lines" / name / "0.png")


def run(*command: str) -> tuple[int, str, float]:
    """Runs a command in a fork, which has imported everything and started nothing.

    Returns:
        Its exit status, what it printed, and the seconds it took.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if not child:
            for number in (1, 2):
                os.dup2(out.fileno(), number)
            code = 70
            try:
                from vgg_jax.cli import command as program

                program.main(command)
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        return status, out.read(), time.monotonic() - began


def _row(title: str, command: tuple[str, ...]) -> bool:
    """Prints a row of the table; returns whether the input got what it should."""
    status, text, seconds = run(*command)
    lines = [line for line in text.strip().splitlines() if line]
    errors = [line for line in lines if line.startswith("error: ")]
    said = (errors or lines or [""])[-1 if status == 0 else 0]
    shown = said.replace("|", "\\|").replace(str(Path.cwd()), ".")
    shown = shown.replace(str(ROOT), ".").strip()
    shown = shown if len(shown) <= 400 else shown[:400] + " ..."
    cut = title if len(title) <= 80 else title[:60] + " ..."
    print(f"| `{cut}` | {shown} | {status} | {seconds:.1f} |".replace("<", "&lt;"))
    sys.stdout.flush()
    told = status in (1, 2) and len(errors) == 1
    return "Traceback" not in text and (told or status == 0)


def main() -> None:
    """Prints the tables; fails if anything got no clear line."""
    import vgg_jax.training.loop  # noqa: F401, imports what the children need

    good = True
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        os.environ["XDG_CACHE_HOME"] = f"{directory}/cache"
        os.environ["TFDS_DATA_DIR"] = f"{directory}/tensorflow_datasets"
        _pictures(Path(directory))
        for i, text in enumerate(CONFIGS.values()):
            Path(f"own{i}.py").write_text(text)
        head = "| input | what it gets | status | s |\n|---|---|---|---|"
        print("What wrong inputs get (`python -m benchmarks.bad_inputs`).\n\n" + head)
        for i, what in enumerate(CONFIGS):
            good &= _row(f"own config: {what}", ("train", f"--config=own{i}.py"))
        for setting in SETTINGS:
            good &= _row(f"--config.{setting}", (*TRAIN, f"--config.{setting}"))
        for command in COMMANDS:
            good &= _row("vgg " + " ".join(command), command)
        print("\nInputs that are right now; the last line they print.\n\n" + head)
        for command in RIGHT:
            good &= _row("vgg " + " ".join(command), command)
    sys.exit(not good)


if __name__ == "__main__":
    main()
