"""Milliseconds for features and for LPIPS, beside PyTorch and jaxlpips.

    python -m benchmarks.features_speed

VGG-16's features up to `relu4_3`, and LPIPS with the gradient by its first images,
float32, on the same cores in turns, each program in its own process. The peers are
torchvision's extractor (`vgg16().features[:23]`) and the `lpips` package, eager and by
`torch.compile`, channels last, with and without the allocator settings that
`vgg_jax.configure` makes for us; and jaxlpips 1.2.0, whose networks are Flax's. Weights
are random. Peers need the environment of `benchmarks/parity.py`.
"""

import argparse
import itertools
import statistics

from benchmarks.peer import MALLOC, Peer, Process
from vgg_jax import machine

OURS = "vgg_jax"
_EAGER, _COMPILE = (("compile", False),), (("compile", True),)
PEERS = {
    OURS: Peer("features_ours.py"),
    "torch": Peer("features_torch.py", "parity", _EAGER),
    "torch tuned": Peer("features_torch.py", "parity", _EAGER, (MALLOC,)),
    "torch.compile": Peer("features_torch.py", "parity", _COMPILE),
    "torch.compile tuned": Peer("features_torch.py", "parity", _COMPILE, (MALLOC,)),
    "jaxlpips": Peer("features_jaxlpips.py", "parity"),
}
JOBS = [
    {"task": task, "size": size, "batch": batch}
    for (task, size), batch in itertools.product(
        (("features", 224), ("lpips", 64), ("lpips", 224)), (1, 16)
    )
]
_SLOW = 20.0  # seconds per call: a peer that takes longer has one turn


def measure(job: dict, *, rounds: int, seconds: float) -> dict[str, Process]:
    """Runs the peers in turn.

    Args:
        job: `task`, `size` and `batch`.
        rounds: number of turns per peer.
        seconds: how long a turn takes, about.

    Returns:
        Name -> `Process`, closed, with its times.
    """
    running = {}
    for name, peer in PEERS.items():
        if name == "jaxlpips" and job["task"] != "lpips":
            continue
        if not peer.python().exists():
            print(f"  {name}: skipped, no environment {peer.environment!r}")
            continue
        try:
            running[name] = Process(peer, job)
        except RuntimeError as error:
            print(f"  {name}: skipped, it failed: {error}")
    once = {name: process.ask(1) for name, process in running.items()}
    for turn in range(rounds):
        for name, process in running.items():
            if once[name] < _SLOW or turn == 0:
                count = max(1, round(seconds / once[name]))
                process.seconds.append(process.ask(count))
    for process in running.values():
        process.close()
    return running


def table(running: dict[str, Process]) -> list[str]:
    """Returns lines of text: one per peer, then the ratio to the best of the others."""
    medians = {name: statistics.median(p.seconds) for name, p in running.items()}
    ours = medians[OURS]
    lines = [
        f"  {name:20} {1e3 * medians[name]:10,.2f} ms   {medians[name] / ours:6.2f}x"
        f"   first call {process.facts['first_seconds']:5.1f} s"
        for name, process in running.items()
    ]
    others = {name: value for name, value in medians.items() if name != OURS}
    if others:
        best = min(others, key=others.__getitem__)
        lines.append(
            f"  {OURS} is {others[best] / ours:.2f}x as fast as the best, {best}"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per turn")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    print(machine.environment(), flush=True)
    for job in JOBS:
        if job["batch"] not in options.batches:
            continue
        print(" ".join(f"{k}={v}" for k, v in job.items()), flush=True)
        running = measure(job, rounds=options.rounds, seconds=options.seconds)
        print(*table(running), sep="\n", flush=True)


if __name__ == "__main__":
    main()
