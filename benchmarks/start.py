"""Times starts of `main.py`, each from the command to its first step in the log.

With an empty cache of compiled programs, then twice with what was kept there; on the
images that come with the repository.

    python -m benchmarks.start
    python -m benchmarks.start --root=../older  # another checkout
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vgg_jax import machine

STARTS = ("empty cache", "second start", "third start")
DTYPES = ("float32", "bfloat16")
STEP = '"kind": "step"'  # in the log of metrics


def seconds(root: Path, fields: dict[str, str], home: Path) -> float:
    """Returns the seconds until `main.py` has logged its first step, and ends it.

    Args:
        root: the checkout.
        fields: of the config, `name: value`.
        home: directory of the cache, and of a workdir.
    """
    workdir = Path(tempfile.mkdtemp(dir=home)) / "run"
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "main.py", "--config=configs/vgg16.py", *given]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=root,
        env=os.environ | {"XDG_CACHE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    ) as process:
        log = workdir / "metrics.jsonl"
        while process.poll() is None:
            if log.exists() and STEP in log.read_text():
                took = time.perf_counter() - began
                process.kill()
                return took
            time.sleep(0.02)
    raise RuntimeError(f"{root / 'main.py'} ended before its first step")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path.cwd())
    root = parser.parse_args().root.resolve()
    print(machine.environment(), flush=True)
    for dtype, norm in itertools.product(DTYPES, (False, True)):
        fields = {
            "data.name": "cifar10_sample",
            "model.dtype": dtype,
            "model.batch_norm": str(norm),
            "log.every_steps": "1",
        }
        with tempfile.TemporaryDirectory() as home:
            took = [seconds(root, fields, Path(home)) for _ in STARTS]
        told = ", ".join(f"{s} {t:.1f} s" for s, t in zip(STARTS, took, strict=True))
        print(f"{dtype:8} {'batch norm' if norm else '':10}  {told}", flush=True)


if __name__ == "__main__":
    main()
