"""Is this checkout as fast as another one? Steps of both, in turns.

    git clone . ../before && git -C ../before checkout cf59324
    python -m benchmarks.revisions --before=../before

VGG-16 D at 32 px, batch 128, or another network; each revision in a process of its own
that runs its own `benchmarks/peers/ours.py`. Printed are the medians over the rounds,
and the ratio of the times in the same round (median, least, most). Run it twice, and
keep the second: a process that has just compiled its program can be some per cent
slower than one that found it in JAX's cache.
"""

import argparse
import statistics
from pathlib import Path

from benchmarks.peer import OURS, PEERS, Process
from vgg_jax import machine
from vgg_jax.errors import ConfigError, guarded

_JOBS = (
    {"mode": "train", "dtype": "float32", "batch_norm": False},
    {"mode": "train", "dtype": "float32", "batch_norm": True},
    {"mode": "train", "dtype": "bfloat16", "batch_norm": False},
    {"mode": "train", "dtype": "bfloat16", "batch_norm": True},
    {"mode": "infer", "dtype": "float32", "batch_norm": False},
    {"mode": "infer", "dtype": "bfloat16", "batch_norm": True},
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="another checkout")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="per turn")
    parser.add_argument("--modes", default="train,infer")
    parser.add_argument("--variant", default="D", help="A to E, or a table")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=32, help="pixels of the images")
    parser.add_argument("--batch", type=int, default=128, help="images per step")
    options = parser.parse_args()
    before = options.before.resolve()
    if not (before / "benchmarks" / "peers" / PEERS[OURS].program).is_file():
        raise ConfigError(f"--before={options.before} is not a checkout of vgg_jax")
    print(machine.environment(), flush=True)
    same = ("variant", "width", "size", "batch")
    network = {name: getattr(options, name) for name in same}
    print(" ".join(f"{name}={value}" for name, value in network.items()), flush=True)
    for job in _JOBS:
        if job["mode"] not in options.modes.split(","):
            continue
        processes = [
            Process(PEERS[OURS], {**network, **job}, before),
            Process(PEERS[OURS], {**network, **job}),
        ]
        for turn in range(options.rounds):
            for process in processes if turn % 2 else reversed(processes):
                process.seconds.append(process.ask(options.steps))
        old, new = (process.seconds for process in processes)
        ratios = sorted(a / b for a, b in zip(old, new, strict=True))
        what = " ".join(map(str, job.values()))
        print(
            f"{what:20} before {1e3 * statistics.median(old):6.0f} ms per step, "
            f"now {1e3 * statistics.median(new):6.0f}: "
            f"{statistics.median(ratios):.3f}x ({ratios[0]:.3f} ... {ratios[-1]:.3f})",
            flush=True,
        )
        for process in processes:
            process.close()


if __name__ == "__main__":
    guarded(main)
