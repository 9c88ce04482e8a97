"""Measures the time to an accuracy: `configs/speedrun.py` here and in PyTorch.

    python -m benchmarks.time_to_accuracy --config=configs/speedrun.py:90

First both take training steps in turns (A B A B) on the real images, which gives their
times per epoch side by side. Then both train to the end by the same recipe, again in
turns (of `--turn` seconds; the other one is stopped meanwhile), and score the test
split once. Their times are those of the whole programs, from start to score: ours reads
the dataset and compiles, PyTorch's is given arrays.

Needs the environment "torch" of `benchmarks/throughput.py`.
"""

import argparse
import dataclasses
import statistics
import tempfile
from functools import partial

import numpy as np

from benchmarks.peer import PEERS, Peer, Process, in_turns
from vgg_jax import backend, machine
from vgg_jax.cli import config_file
from vgg_jax.data import batches, datasets
from vgg_jax.errors import RunError, guarded
from vgg_jax.nn import whitening
from vgg_jax.nn.preprocessing import normalize
from vgg_jax.training.config import resolve

_TORCH = Peer("speedrun_pytorch.py", "torch", environ=PEERS["torch tuned"].environ)
_BOTH = {"vgg_jax": Peer("speedrun_ours.py"), "torch": _TORCH}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="configs/speedrun.py:90")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps per turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_training", action="store_true", help="only time steps")
    parser.add_argument("--turn", type=float, default=30, help="seconds in training")
    parser.add_argument("--workdir", default="", help="keeps our run there")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    options, settings = parser.parse_known_args()
    if not _TORCH.python().exists():
        raise RunError(
            f"there is no {_TORCH.python()}: `python -m benchmarks.throughput --help` "
            "says how to make it"
        )
    backend.configure()
    print(machine.environment(), flush=True)
    config = resolve(config_file.load(options.config, settings))
    print(f"{options.config} in {config.model.dtype}", flush=True)
    dataset = datasets.load(**dataclasses.asdict(config.data))
    shown = normalize(dataset.train.images[: whitening.IMAGES], "cifar10")
    job = {"config": dict(config.fields), "seed": options.seed}
    job["compile"] = options.compile
    with tempfile.TemporaryDirectory() as directory:
        job["data"] = f"{directory}/data.npz"
        np.savez(
            job["data"],
            images=dataset.train.images,
            labels=dataset.train.labels,
            test_images=dataset.test.images,
            test_labels=dataset.test.labels,
            whitening=whitening.filters([shown], 3),
        )
        served = {**job, "mode": "serve"}
        running = {name: Process(peer, served) for name, peer in _BOTH.items()}
        for _ in range(options.rounds):
            for process in running.values():
                process.seconds.append(process.ask(options.steps))
        steps = batches.steps_per_epoch(len(dataset.train), config.batch_size)
        for name, process in running.items():
            process.close()
            epoch = steps * statistics.median(process.seconds)
            print(f"{name:8} {epoch:7.1f} s per epoch of {steps} steps", flush=True)
        pairs = zip(*(p.seconds for p in running.values()), strict=True)
        ratios = sorted(torch / ours for ours, torch in pairs)
        print(
            f"PyTorch's epoch takes {statistics.median(ratios):.2f}x ours "
            f"({ratios[0]:.2f} ... {ratios[-1]:.2f})",
            flush=True,
        )
        if not options.no_training:
            job["workdir"] = options.workdir or f"{directory}/run"
            _train(job, options.turn)


def _train(job, turn):
    started = {
        name: partial(Process, peer, {**job, "mode": "train"}, wait=False, shown=True)
        for name, peer in _BOTH.items()
    }
    processes, seconds = in_turns(started, turn)
    for name, process in processes.items():
        if process.failure:
            raise RunError(f"{name}: {process.failure}")
        print(f"{name:8} {process.facts['accuracy']:.2%} in {seconds[name]:.0f} s")
    print(f"PyTorch takes {seconds['torch'] / seconds['vgg_jax']:.2f}x our time")


if __name__ == "__main__":
    guarded(main)
