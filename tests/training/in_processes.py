"""Makes the same first step 40 times, in one process or in two; prints the losses.

Run by `test_processes.py`: `python in_processes.py COORDINATOR NUMBER INDEX FIELDS`,
which are fields of a config and their values, as JSON. Without shards, so that batch
norm's sums cross from process to process.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from vgg_jax import backend, processes
from vgg_jax.cli import config_file

FIELDS = {
    "batch_size": 32,
    "data.train": "train[:128]",
    "data.validation": "train[128:192]",
    "data.test": "test[:50]",
    "model.variant": "conv3-16 | conv3-32 conv3-64 |",
    "model.width": 1.0,
    "model.dtype": "float32",
}


def losses(workdir, fields):
    """Starts from one state again and again."""
    from vgg_jax import mesh
    from vgg_jax.data import batches
    from vgg_jax.training import opening
    from vgg_jax.training.config import resolve

    fields = FIELDS | fields
    settings = [f"--config.{name}={value}" for name, value in fields.items()]
    config = resolve(config_file.load("quickstart", settings))
    order = {"seed": 0, "epoch": 0, "start": 0, "remainder": "drop"}
    with opening.opened(config, workdir, Console(quiet=True)) as (run, state):
        batch = next(batches.training(run.train, batch_size=32, mesh=run.mesh, **order))
        first = mesh.gathered(state)
        for _ in range(40):
            _, metrics = run.train_step(run.placed(first), batch)
            yield round(float(metrics["loss"]), 3)


def main():
    coordinator, number, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    together = contextlib.nullcontext()
    if number > 1:
        silent = lambda text: None
        together = processes.joined(coordinator, number, index, report=silent)
    backend.configure()
    with together, tempfile.TemporaryDirectory() as directory:
        own = json.loads(sys.argv[4])
        print(json.dumps(list(losses(Path(directory), own))), flush=True)


if __name__ == "__main__":
    main()
