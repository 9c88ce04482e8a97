"""Measures images per second in training and inference, beside other frameworks.

Every peer is a process of its own (`peers/`), in its own environment, with the same
network, batch and type. All are built and warmed up first; then they take turns
(A B C, A B C, ...), one at a time, so that a noisy machine is noisy for all. Printed
are the medians over the rounds; the ratio to `vgg_jax` in the same round (median,
least, most); the model's FLOP per second as a share of the peak of matrix products,
which is measured in the same rounds; and the most memory that the process ever held,
or its arrays on an accelerator did. Inference takes 2 FLOP per MAC, training three
times that. With `--together` the peers are built all at once, which is quicker beside
an accelerator, where compiling takes most of the time; their first steps are then
slower than alone.

    python -m benchmarks.throughput                    # VGG-16 D, 32 px, batch 128
    python -m benchmarks.throughput --batch_norm
    python -m benchmarks.throughput --peers vgg_jax --batches 8,32,128,512

The other peers know VGG-16 D only, and keep all activations: give `--variants`,
`--remat` and `--shards` together with `--peers vgg_jax`. PyTorch and Keras run in
environments of their own, or in this one where it has them, and are skipped without
either:

    python3.11 -m venv benchmarks/envs/torch
    benchmarks/envs/torch/bin/pip install torch==2.13.0 numpy
    python3.11 -m venv benchmarks/envs/keras
    benchmarks/envs/keras/bin/pip install keras tensorflow
"""

import argparse
import itertools
import statistics

from benchmarks.peer import OURS, PEAK, PEERS, Process
from vgg_jax import machine
from vgg_jax.nn import cost
from vgg_jax.nn.vgg import REMAT, VGG


def measure(
    names: list[str],
    job: dict,
    *,
    rounds: int,
    seconds: float,
    together: bool = False,
) -> dict:
    """Runs the peers, and the measurement of the peak, in turn.

    Args:
        names: which of `PEERS`; those that cannot run are skipped with a message.
        job: `mode`, `dtype`, `batch_norm`, `batch`, `size`, `variant`, `width`.
        rounds: number of turns per peer.
        seconds: how long a turn takes, about.
        together: whether all are built at once, and not one after the other.

    Returns:
        Name -> `Process`, closed, with its times.
    """
    started = {}
    for name, peer in {**{n: PEERS[n] for n in names}, "peak": PEAK}.items():
        if not peer.python().exists():
            print(
                f"  {name}: skipped, no environment {peer.environment!r} (see --help)"
            )
            continue
        started[name] = Process(peer, job, wait=False)
        if not together:
            _ = started[name].failure
    running = {}
    for name, process in started.items():
        if process.failure:
            print(f"  {name}: skipped, it failed: {process.failure}")
        else:
            running[name] = process
    counts = {n: max(1, round(seconds / p.ask(2))) for n, p in running.items()}
    for _ in range(rounds):
        for name, process in running.items():
            process.seconds.append(process.ask(counts[name]))
    for process in running.values():
        process.close()
    return running


def table(running: dict, job: dict) -> list[str]:
    """Returns lines of text: one for the peak, then one per peer."""
    model = VGG(job["variant"], num_classes=10, width=job["width"], head="compact")
    macs = cost.total(cost.costs(model.layers((job["size"], job["size"])))).macs
    flop = 2 * macs * job["batch"] * (3 if job["mode"] == "train" else 1)
    peak = running["peak"]
    peak_rate = peak.facts["flop_per_step"] / min(peak.seconds)
    lines = [f"  matrix-product peak {peak_rate / 1e9:,.0f} GFLOP/s"]
    for name, process in running.items():
        if name == "peak":
            continue
        step = statistics.median(process.seconds)
        line = (
            f"  {name:20} {job['batch'] / step:9,.1f} images/s {1e3 * step:9,.1f} ms "
            f"{flop / step / 1e9:7,.0f} GFLOP/s {flop / step / peak_rate:6.1%} of peak"
        )
        if name != OURS and OURS in running:
            pairs = zip(process.seconds, running[OURS].seconds, strict=True)
            ratios = sorted(peer_seconds / ours for peer_seconds, ours in pairs)
            line += (
                f"   {OURS} is {statistics.median(ratios):6.2f}x "
                f"({ratios[0]:.2f} ... {ratios[-1]:.2f})"
            )
        line += f"   first step {process.facts['first_seconds']:.1f} s"
        lines.append(line + f"   peak memory {process.peak_memory / 1e9:.2f} GB")
    return lines


def _list(kind):
    return lambda text: [kind(item) for item in text.split(",")]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=_list(str), default=list(PEERS))
    parser.add_argument("--modes", type=_list(str), default=["train", "infer"])
    parser.add_argument("--dtypes", type=_list(str), default=["bfloat16", "float32"])
    parser.add_argument(
        "--batches", type=_list(int), default=[128], help="images per batch"
    )
    parser.add_argument(
        "--sizes", type=_list(int), default=[32], help="pixels of the images"
    )
    parser.add_argument("--widths", type=_list(float), default=[1.0])
    parser.add_argument("--variants", type=_list(str), default=["D"])
    parser.add_argument("--batch_norm", action="store_true")
    parser.add_argument("--remat", default="none", choices=REMAT)
    parser.add_argument("--shards", type=int, default=1, help="parts of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per turn")
    parser.add_argument("--together", action="store_true", help="build peers at once")
    options = parser.parse_args()
    print(machine.environment(), flush=True)
    for variant, width, size, batch, dtype, mode in itertools.product(
        options.variants, options.widths, options.sizes, options.batches,
        options.dtypes, options.modes,
    ):  # fmt: skip
        job = {
            "mode": mode,
            "dtype": dtype,
            "batch_norm": options.batch_norm,
            "batch": batch,
            "size": size,
            "variant": variant,
            "width": width,
            "remat": options.remat,
            "shards": options.shards,
        }
        print(" ".join(f"{k}={v}" for k, v in job.items()), flush=True)
        running = measure(
            options.peers,
            job,
            rounds=options.rounds,
            seconds=options.seconds,
            together=options.together,
        )
        print(*table(running, job), sep="\n", flush=True)


if __name__ == "__main__":
    main()
