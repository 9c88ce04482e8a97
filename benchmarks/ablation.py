"""Measures what each part of the speedrun's recipe buys, by a run without it.

    python -m benchmarks.ablation --config=configs/speedrun.py:90 --seeds=1
    python -m benchmarks.ablation --without=late_pools,random_flip

Every run trains on 90% of the training images and is judged on the other 10%. The test
split is not read, except for one image, since a run has to end with a test. `--without`
names the parts to leave out, one run for each; by default, all of them. The number of
views of an image plays no part in training, so those rows are the weights of the whole
recipe, scored again with fewer views.

The same command goes on where it was stopped and leaves finished runs alone.
`--devices=cpu0,cpu1` runs two at a time.
"""

import argparse
import statistics
from pathlib import Path

from rich.console import Console

from vgg_jax import backend
from vgg_jax.errors import choose, guarded
from vgg_jax.runs import devices
from vgg_jax.runs.launcher import Launcher
from vgg_jax.training.score import score

_HELD_OUT = {
    "data.train": "train[:90%]",
    "data.validation": "train[90%:]",
    "data.test": "test[:1]",
}
_ALL = "all"
# name of the run -> what it does without, and the fields that say so
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
# number of views -> which of the six are missing
VIEWS = {1: "other views of an image", 2: "other views but its mirror image"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/speedrun.py:90")
    parser.add_argument("--seeds", type=int, default=1, help="runs per part")
    parser.add_argument(
        "--without", default=",".join(WITHOUT), help="default: %(default)s"
    )
    parser.add_argument(
        "--devices", default="", help="0,1 or cpu0,cpu1: one run on each"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args()
    parts = {_ALL: ("nothing", {})}
    for name in options.without.split(","):
        parts[name] = choose(WITHOUT, name, "--without")
    launcher = Launcher(
        options.config, options.workdir, devices.chosen(options.devices)
    )
    seeds = range(options.seeds)
    jobs = [
        _job(launcher, name, text, fields, seed)
        for name, (text, fields) in parts.items()
        for seed in seeds
    ]
    accuracies = iter(launcher.all(jobs))
    rows = {text: [next(accuracies) for _ in seeds] for text, _ in parts.values()}
    backend.configure()
    scores = [_scores(options.workdir / f"{_ALL},seed={seed}") for seed in seeds]
    for views, text in VIEWS.items():
        rows[text] = [accuracy_by_views[views] for accuracy_by_views in scores]
    _print_table(rows)


def _job(launcher, name, text, fields, seed):
    """Returns a function that runs one part's run and returns its accuracy.

    That is top-1 on the validation split after the last epoch, in per cent.
    """

    def job():
        record = launcher(
            f"{name},seed={seed}", {**_HELD_OUT, **fields, "seed": str(seed)}
        )
        accuracy = 100 * record.column("val_accuracy")[1][-1]
        print(f"without {text}, seed {seed}: {accuracy:.2f}%", flush=True)
        return accuracy

    return job


def _scores(workdir):
    """Returns number of views -> validation top-1 of a run's weights, in per cent."""
    console = Console(quiet=True)
    evaluations = score(workdir, views=list(VIEWS), checkpoint="last", console=console)
    return {views: 100 * result.accuracy for views, result in evaluations.items()}


def _print_table(rows):
    print("| without | validation top-1, % | difference |\n|---|---|---|")
    whole = statistics.mean(next(iter(rows.values())))
    for text, accuracies in rows.items():
        mean = statistics.mean(accuracies)
        spread = ""
        if len(accuracies) > 1:
            spread = f" +- {statistics.stdev(accuracies):.2f}"
        print(f"| {text} | {mean:.2f}{spread} | {mean - whole:+.2f} |")


if __name__ == "__main__":
    guarded(main)
