"""Whole runs on 1, 2 and 4 devices; images there; one stopped that goes on elsewhere.

Run by `test_shards.py` in a process of its own with four devices:
`python runs_on_devices.py SHARDS RUN ...`. Prints, for each run, the CRC-32 of the last
weights and what the log holds, timings left out.
"""

import json
import os
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.test_loop import crc, epochs, numbers, tiny
from vgg_jax import backend
from vgg_jax.data import on_device
from vgg_jax.training import loop, opening, placement
from vgg_jax.training.interrupt import Interrupt, Stopped

STEPS = 5  # into the second epoch


class Stop(Interrupt):
    asked = 0

    def __call__(self):
        self.asked += 1
        if self.asked == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__()


def run(workdir, shape, shards):
    """Trains on so many devices, or on groups of them, "2x2"."""
    data, model = map(int, f"{shape}x1".split("x")[:2])
    config = tiny(**{"mesh.data": data, "mesh.model": model, "shards": shards})
    return loop.train(config, workdir, Console(quiet=True))


def show(name, workdir, result):
    score = {k: result["test"][k] for k in ("accuracy", "loss")}
    row = {"run": name, "crc32": crc(workdir), "rows": numbers(epochs(workdir))}
    print(json.dumps(row | score), flush=True)


def on_device_run(workdir, shards):
    """As on accelerators, whose memory holds the images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_device, "fits", lambda split, mesh: True)
        return run(workdir, "4", shards)


def spread(workdir, shape, shards):
    """Every array of the state that can be is spread; the best epoch is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "_SMALL", 8)
        fields = {"mesh.data": int(shape), "shards": shards, "mesh.state": "fsdp"}
        return loop.train(tiny(**fields), workdir, Console(quiet=True))


def moved(workdir, shards, before="4", after="2", trained=run, resumed=run):
    """Stopped on some devices, resumed on others."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(opening, "Interrupt", Stop)
        trained(workdir, before, shards)
    return resumed(workdir, after, shards)


RUNS = {
    "1": partial(run, shape="1"),
    "2": partial(run, shape="2"),
    "4": partial(run, shape="4"),
    "2x2": partial(run, shape="2x2"),
    "placed": on_device_run,
    "fsdp": partial(spread, shape="4"),
    "moved": moved,
    "fsdp to 1": partial(moved, after="1", trained=spread),
    "fsdp on 2 to 4": partial(
        moved, before="2", after="4", trained=spread, resumed=spread
    ),
    "2x2 to 1": partial(moved, before="2x2", after="1"),
    "4 to 1x2": partial(moved, before="4", after="1x2"),
}


def main():
    backend.configure()
    shards = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        for name in sys.argv[2:]:
            workdir = Path(directory, name)
            show(name, workdir, RUNS[name](workdir, shards=shards))


if __name__ == "__main__":
    main()
