"""What each part of the speedrun's recipe buys: runs without it, one at a time.

    python -m benchmarks.ablation --config=configs/speedrun.py:90 --seeds=1
    python -m benchmarks.ablation --without=late_pools,random_flip

Trains on 90% of the training images and is judged on the other 10%; the test split is
not read (one image of it, which a run needs). `--without` names the parts to leave out,
all of them if not given. The views of an image are no part of the training: the whole
recipe's weights are scored with fewer. Resumable; finished runs are left alone.
`--devices=cpu0,cpu1` runs two at a time.
"""

import argparse
import statistics
from pathlib import Path

from rich.console import Console

from vgg_jax import backend
from vgg_jax.errors import choose, guarded
from vgg_jax.runs.launcher import Runner, devices
from vgg_jax.training.score import score

_HELD_OUT = {
    "data.train": "train[:90%]",
    "data.validation": "train[90%:]",
    "data.test": "test[:1]",
}
_ALL = "all"
# name of the run -> what it does without, the fields that say so
WITHOUT = {
    "no_whitening": ("whitening: conv1_1 learned", {"model.whiten": "False"}),
    "he_init": ("identity initialisation: He's", {"model.kernel_init": "he"}),
    "no_lookahead": ("lookahead", {"lookahead": "0.0"}),
    "random_flip": ("alternating flips: random", {"augment.flip": "random"}),
    "no_smoothing": ("label smoothing", {"label_smoothing": "0.0"}),
    "slow_biases": ("64-fold rate of norm biases", {"optimizer.bias_scale": "1.0"}),
    "plain_momentum": ("Nesterov's momentum", {"optimizer.nesterov": "False"}),
    "late_pools": ("pools before batch norm", {"model.pool_early": "False"}),
}
VIEWS = {1: "other views of an image", 2: "other views but its mirror image"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/speedrun.py:90")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--without", default=",".join(WITHOUT))
    parser.add_argument("--devices", default="", help="as of vgg_jax.runs.sweep")
    parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args()
    parts = {_ALL: ("nothing", {})}
    for name in options.without.split(","):
        parts[name] = choose(WITHOUT, name, "--without")
    runner = Runner(options.config, options.workdir, devices(options.devices))
    seeds = range(options.seeds)
    jobs = [_job(runner, n, *part, s) for n, part in parts.items() for s in seeds]
    found = iter(runner.all(jobs))
    rows = {text: [next(found) for _ in seeds] for text, _ in parts.values()}
    backend.configure()
    scored = [_scored(options.workdir / f"{_ALL},seed={seed}") for seed in seeds]
    for views, text in VIEWS.items():
        rows[text] = [one[views] for one in scored]
    _print_table(rows)


def _job(runner, name, text, fields, seed):
    """A run's validation top-1 in per cent, printed as it is found."""

    def job():
        record = runner(
            f"{name},seed={seed}", {**_HELD_OUT, **fields, "seed": str(seed)}
        )
        found = 100 * record.column("val_accuracy")[1][-1]
        print(f"without {text}, seed {seed}: {found:.2f}%", flush=True)
        return found

    return job


def _scored(run):
    quiet = Console(quiet=True)
    found = score(run, views=list(VIEWS), checkpoint="last", console=quiet)
    return {views: 100 * result.accuracy for views, result in found.items()}


def _print_table(rows):
    print("| without | validation top-1, % | difference |\n|---|---|---|")
    whole = statistics.mean(next(iter(rows.values())))
    for text, values in rows.items():
        mean = statistics.mean(values)
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        print(f"| {text} | {mean:.2f}{spread} | {mean - whole:+.2f} |")


if __name__ == "__main__":
    guarded(main)
