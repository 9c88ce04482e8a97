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
WITHOUT = {
    "all of it": {},
    "conv1_1 learned as the others, not whitening": {"model.whiten": "False"},
    "He initialisation, not identity": {"model.kernel_init": "he"},
    "batch norm and ReLU before the pools, not after": {"model.pool_early": "False"},
    "no lookahead": {"lookahead": "0.0"},
    "random flips, not alternating": {"augment.flip": "random"},
    "one view of a test image, not six": {"views": "1"},
    "no label smoothing": {"label_smoothing": "0.0"},
    "batch norm's biases as slow as kernels": {"optimizer.bias_scale": "1.0"},
    "plain momentum, not Nesterov's": {"optimizer.nesterov": "False"},
    "batches of 512": {"batch_size": "512", "lr": "0.75"},
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
    found = {}
    for seed in range(options.seeds):
        for name, fields in WITHOUT.items():
            fields = {**_HELD_OUT, **fields, "seed": str(seed)}
            run = f"{name.replace(' ', '_')},seed={seed}"
            (record,) = runner.all([functools.partial(runner, run, fields)])
            last = record.column("val_accuracy")[1][-1]
            found.setdefault(name, []).append(100 * last)
    whole = statistics.mean(found["all of it"])
    print("| without | validation top-1, % | difference |\n|---|---|---|")
    for name, values in found.items():
        mean = statistics.mean(values)
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        print(f"| {name} | {mean:.2f}{spread} | {mean - whole:+.2f} |")


if __name__ == "__main__":
    guarded(main)
