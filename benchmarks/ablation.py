"""What each part of the speedrun's recipe buys: runs without it, one at a time.

    python -m benchmarks.ablation --config=configs/speedrun.py:90 --seeds=1

Trains on 90% of the training images and is judged on the other 10%; the test split is
not read (one image of it, which a run needs). Resumable; finished runs are left alone.
"""

import argparse
import functools
import statistics
from pathlib import Path

from vgg_jax.errors import guarded
from vgg_jax.runner import Runner

_HELD_OUT = {
    "data.train": "train[:90%]",
    "data.validation": "train[90%:]",
    "data.test": "test[:1]",
}
# name of the run -> what it does without, the fields that say so
WITHOUT = {
    "all": ("nothing", {}),
    "no_whitening": ("whitening: conv1_1 learned", {"model.whiten": "False"}),
    "he_init": ("identity initialisation: He's", {"model.kernel_init": "he"}),
    "no_lookahead": ("lookahead", {"lookahead": "0.0"}),
    "random_flip": ("alternating flips: random", {"augment.flip": "random"}),
    "one_view": ("six views of a test image: one", {"views": "1"}),
    "no_smoothing": ("label smoothing", {"label_smoothing": "0.0"}),
    "slow_biases": ("64-fold rate of norm biases", {"optimizer.bias_scale": "1.0"}),
    "plain_momentum": ("Nesterov's momentum", {"optimizer.nesterov": "False"}),
    "late_pools": ("pools before batch norm", {"model.pool_early": "False"}),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/speedrun.py:90")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args()
    runner = Runner(options.config, options.workdir)
    print("| without | validation top-1, % | difference |\n|---|---|---|")
    whole = None
    for name, (text, fields) in WITHOUT.items():
        found = []
        for seed in range(options.seeds):
            fields = {**_HELD_OUT, **fields, "seed": str(seed)}
            job = functools.partial(runner, f"{name},seed={seed}", fields)
            (record,) = runner.all([job])
            found.append(100 * record.column("val_accuracy")[1][-1])
        mean = statistics.mean(found)
        whole = whole or mean  # the first row's
        spread = f" +- {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        print(f"| {text} | {mean:.2f}{spread} | {mean - whole:+.2f} |", flush=True)


if __name__ == "__main__":
    guarded(main)
