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
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.test_loop import crc, epochs, numbers, tiny
from vgg_jax import backend
from vgg_jax.data import on_device
from vgg_jax.training import loop, placement, session
from vgg_jax.training.interrupt import Interrupt, Stopped

STEPS = 5  # into the second epoch


class Stop(Interrupt):
    asked = 0

    def __call__(self):
        self.asked += 1
        if self.asked == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__()


def run(workdir, devices, shards):
    config = tiny(**{"mesh.data": devices, "shards": shards})
    return loop.train(config, workdir, Console(quiet=True))


def show(name, workdir, result):
    score = {k: result["test"][k] for k in ("accuracy", "loss")}
    row = {"run": name, "crc32": crc(workdir), "rows": numbers(epochs(workdir))}
    print(json.dumps(row | score), flush=True)


def on_device_run(workdir, shards):
    """As on accelerators, whose memory holds the images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_device, "fits", lambda split, mesh: True)
        return run(workdir, 4, shards)


def spread(workdir, shards):
    """Every array of the state that can be is spread; the best epoch is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "_SMALL", 8)
        fields = {"mesh.data": 4, "shards": shards, "mesh.state": "fsdp"}
        return loop.train(tiny(**fields), workdir, Console(quiet=True))


def moved(workdir, shards):
    """Stopped on four devices, resumed on two."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(session, "Interrupt", Stop)
        run(workdir, 4, shards)
    return run(workdir, 2, shards)


RUNS = {
    "1": lambda workdir, shards: run(workdir, 1, shards),
    "2": lambda workdir, shards: run(workdir, 2, shards),
    "4": lambda workdir, shards: run(workdir, 4, shards),
    "placed": on_device_run,
    "fsdp": spread,
    "moved": moved,
}


def main():
    backend.configure()
    shards = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        for name in sys.argv[2:]:
            workdir = Path(directory, name)
            show(name, workdir, RUNS[name](workdir, shards))


if __name__ == "__main__":
    main()
