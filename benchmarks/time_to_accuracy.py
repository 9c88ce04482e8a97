"""Time to an accuracy: `configs/speedrun.py` here and the same recipe in PyTorch.

First both take training steps in turns (A B A B) on the real images, which gives the
time of an epoch side by side; then PyTorch trains to the end once, and its accuracy is
printed beside that of our runs (`--results`, each a `result.json` of a run of the same
config). The ratio of times to the target is that of the epochs' times where both get
there in as many epochs.

    python -m benchmarks.time_to_accuracy --config=configs/speedrun.py:90 \\
        --results=results/speedrun_90/seed0/result.json

Needs the environment "torch" of `benchmarks/throughput.py`.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.throughput import PEERS, Peer, Process
from vgg_jax import backend
from vgg_jax.data import batches
from vgg_jax.data import datasets as data
from vgg_jax.errors import ConfigError, guarded
from vgg_jax.nn import whitening as whiten
from vgg_jax.training import augment
from vgg_jax.training import config as config_lib

_TORCH = Peer("speedrun_pytorch.py", "torch", environ=PEERS["torch tuned"].environ)
_OURS = Peer("speedrun_ours.py")


def load(spec):
    """The resolved config of `configs/file.py:argument`."""
    path, _, argument = spec.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"--config={spec}: there is no file {path}")
    found = importlib.util.spec_from_file_location("speedrun", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return config_lib.resolve(module.get_config(*filter(None, [argument])))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/speedrun.py:90")
    parser.add_argument("--results", nargs="*", type=Path, default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of a turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_training", action="store_true", help="only time steps")
    options = parser.parse_args()
    backend.configure()
    print(backend.environment(), flush=True)
    config = load(options.config)
    print(f"{options.config} in {config.model.dtype}", flush=True)
    dataset = data.load(**config.data)
    shown = augment.normalize(dataset.train.images[: whiten.IMAGES], "cifar10")
    job = {"config": json.loads(config.to_json()), "seed": options.seed}
    with tempfile.TemporaryDirectory() as directory:
        job["data"] = f"{directory}/data.npz"
        np.savez(
            job["data"],
            images=dataset.train.images,
            labels=dataset.train.labels,
            test_images=dataset.test.images,
            test_labels=dataset.test.labels,
            whitening=whiten.filters(np.asarray(shown), 3),
        )
        running = {
            "vgg_jax": Process(_OURS, {**job, "mode": "serve"}),
            "torch": Process(_TORCH, {**job, "mode": "serve"}),
        }
        for _ in range(options.rounds):
            for process in running.values():
                process.seconds.append(process.ask(options.steps))
        steps = batches.steps_per_epoch(len(dataset.train), config.batch_size)
        for name, process in running.items():
            process.close()
            epoch = steps * statistics.median(process.seconds)
            print(f"{name:8} {epoch:7.1f} s an epoch of {steps} steps", flush=True)
        pairs = zip(*(p.seconds for p in running.values()), strict=True)
        ratios = sorted(theirs / ours for ours, theirs in pairs)
        print(
            f"PyTorch's epoch takes {statistics.median(ratios):.2f}x ours "
            f"({ratios[0]:.2f} ... {ratios[-1]:.2f})",
            flush=True,
        )
        for path in options.results:
            found = json.loads(path.read_text())
            accuracy, seconds = found["test"]["accuracy"], found["seconds"]
            print(f"vgg_jax  {accuracy:.2%} in {seconds:.0f} s ({path})")
        if not options.no_training:
            trained = Process(_TORCH, {**job, "mode": "train"}).facts
            print(f"torch    {trained['accuracy']:.2%} in {trained['seconds']:.0f} s")


if __name__ == "__main__":
    guarded(main)
