"""The paper's Tables 3, 4, 5 and 7 at CIFAR's scale.

    python -m benchmarks.protocol_table --out=results/protocol

Trains B, C, D and E (`configs/protocol.py`) with S = 73 and with S in [73, 146], two
seeds each, and tests them on CIFAR-10's 10,000 test images, each way once: densely
at one scale (Q = S, or the middle of the range) and at three; D and E, jittered, by 150
crops and by both; and D and E together. It goes on where it stopped: a network that is
trained and a test that was made stay (`<out>/*.json`, and posteriors in `<out>/*.npz`,
for the fusion). `--table` prints what there is, beside the paper's own numbers. Several
processes may share the work, each with networks of its own (`--variants`, `--scales`,
`--seeds`).
"""

import argparse
import functools
import json
import statistics
from pathlib import Path

import numpy as np

import vgg_jax
from configs import protocol as config_file
from vgg_jax import backend, machine
from vgg_jax.data import datasets
from vgg_jax.errors import guarded
from vgg_jax.evaluation import protocol
from vgg_jax.evaluation.scaled_pictures import OfSplit
from vgg_jax.files import write_atomically
from vgg_jax.runs.checkpoint import NotFinite
from vgg_jax.training import loop

VARIANTS = ("B", "C", "D", "E")
SCALES = ("73", "jitter")
SEEDS = (0, 1)
MANY = (73, 110, 146)  # Q: the paper's 256, 384, 512
ONE = {"73": (73,), "jitter": (110,)}
NEAR = {"73": (64, 73, 82), "jitter": MANY}  # the paper's S - 32, S, S + 32; or those
FUSED = ("D", "E")
DIVERGED = "diverged"  # in the file of a network whose loss is not finite
# Of the paper (docs/facts.md, section 4): top-1 / top-5 error in % on ImageNet.
PAPER = {
    ("B", "73", "one scale"): "28.7 / 9.9",
    ("C", "73", "one scale"): "28.1 / 9.4",
    ("D", "73", "one scale"): "27.0 / 8.8",
    ("E", "73", "one scale"): "27.3 / 9.0",
    ("C", "jitter", "one scale"): "27.3 / 8.8",
    ("D", "jitter", "one scale"): "25.6 / 8.1",
    ("E", "jitter", "one scale"): "25.5 / 8.0",
    ("C", "jitter", "three scales"): "26.3 / 8.2",
    ("D", "jitter", "three scales"): "24.8 / 7.5",
    ("E", "jitter", "three scales"): "24.8 / 7.5",
    ("D", "jitter", "crops"): "24.6 / 7.5",
    ("E", "jitter", "crops"): "24.6 / 7.4",
    ("D", "jitter", "both"): "24.4 / 7.2",
    ("E", "jitter", "both"): "24.4 / 7.1",
    ("D + E", "jitter", "three scales"): "24.0 / 7.1",
    ("D + E", "jitter", "crops"): "23.9 / 7.2",
    ("D + E", "jitter", "both"): "23.7 / 6.8",
}
# A test -> protocol and scales by S.
TESTS = {
    "one scale": ("dense", ONE),
    "three scales": ("dense", NEAR),
    "crops": ("crops", {"jitter": MANY}),
}


def errors(posteriors: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns top-1 and top-5 error in %."""
    found = protocol.score(posteriors, labels)
    return {"top1": 100 * found.top1, "top5": 100 * found.top5}


def tests_of(variant: str, scale: str) -> list[str]:
    """Returns the tests of a network, by name."""
    crops = variant in FUSED and scale == "jitter"
    return [name for name in TESTS if name != "crops" or crops]


def measure(name: str, variant: str, scale: str, seed: int, out: Path, runs: Path):
    """Trains a network if it is not trained, and makes the tests that are missing."""
    file = out / f"{name}.json"
    row = json.loads(file.read_text()) if file.exists() else {}
    missing = [test for test in tests_of(variant, scale) if test not in row]
    if not missing or DIVERGED in row:
        return
    config = config_file.get_config(f"{variant},{scale}")
    config.seed = seed
    try:
        loop.train(config, runs / name, test=False)
    except NotFinite as error:
        print(name, error, flush=True)
        write_atomically(file, json.dumps({DIVERGED: str(error)}, indent=2) + "\n")
        return
    network = vgg_jax.load(str(runs / name))
    for test in missing:
        way, scales = TESTS[test]
        score = protocol.evaluate(
            [network], images(), protocol=way, scales=scales[scale], flip=True
        ).fusion
        row[test] = errors(score.posteriors, test_split().labels)
        if variant in FUSED and scale == "jitter" and test != "one scale":
            kept = out / f"{name}_{test.replace(' ', '_')}.npz"
            np.savez_compressed(kept, posteriors=score.posteriors.astype(np.float16))
        row["environment"] = machine.environment(1)
        write_atomically(file, json.dumps(row, indent=2) + "\n")
        print(name, test, row[test], flush=True)


@functools.cache
def images() -> OfSplit:
    """Returns the test images."""
    return OfSplit(test_split())


@functools.cache
def test_split() -> datasets.Split:
    """Returns the test split."""
    return datasets.one_split("cifar10", "test")[0]


def together(out: Path, seed: int) -> dict[str, dict[str, float]]:
    """Returns the errors that come from posteriors: of both ways, of both networks."""
    found, labels = {}, test_split().labels
    read = lambda variant, test: np.load(out / f"{variant}_jitter_{seed}_{test}.npz")
    parts = {}
    for variant in FUSED:
        for test in ("three_scales", "crops"):
            try:
                rows = read(variant, test)["posteriors"].astype(np.float64)
            except FileNotFoundError:
                return found
            parts[variant, test.replace("_", " ")] = rows
        both = (parts[variant, "three scales"] + parts[variant, "crops"]) / 2
        parts[variant, "both"] = both
        found[variant, "both"] = errors(both, labels)
    for test in ("three scales", "crops", "both"):
        mean = (parts[FUSED[0], test] + parts[FUSED[1], test]) / 2
        found[" + ".join(FUSED), test] = errors(mean, labels)
    return found


def table(out: Path) -> str:
    """Returns the table as Markdown: mean over the seeds, each of them, the paper's.

    Below it are the networks that diverged.
    """
    failed = []
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for file in sorted(out.glob("*.json")):
        variant, scale, _ = file.stem.split("_")
        for test, row in json.loads(file.read_text()).items():
            if test == DIVERGED:
                failed.append(f"{file.stem}: {row}")
            if test in TESTS:
                rows.setdefault((variant, scale, test), []).append(row)
    for seed in SEEDS:
        for (variant, test), row in together(out, seed).items():
            rows.setdefault((variant, "jitter", test), []).append(row)
    trained = {"73": "73", "jitter": "[73; 146]"}
    lines = [
        "| test | network | S | top-1 error % | seeds | top-5 error % | the paper's |",
        "|---|---|---|---|---|---|---|",
    ]
    for wanted in ("one scale", "three scales", "crops", "both"):
        for (variant, scale, test), found in rows.items():
            if test == wanted:
                first, fifth = (
                    statistics.mean(row[key] for row in found)
                    for key in ("top1", "top5")
                )
                each = ", ".join(f"{row['top1']:.2f}" for row in found)
                paper = PAPER.get((variant, scale, test), "")
                lines.append(
                    f"| {test} | {variant} | {trained[scale]} | {first:.2f} | {each} | "
                    f"{fifth:.2f} | {paper} |"
                )
    return "\n".join([*lines, *failed])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/protocol"))
    parser.add_argument("--runs", type=Path, default=Path("runs/protocol"))
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--scales", nargs="+", default=SCALES, choices=SCALES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, choices=SEEDS)
    parser.add_argument("--table", action="store_true", help="print, train nothing")
    options = parser.parse_args()
    backend.configure()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for seed in options.seeds:
            for scale in reversed(options.scales):
                for variant in reversed(options.variants):
                    name = f"{variant}_{scale}_{seed}"
                    measure(name, variant, scale, seed, options.out, options.runs)
    print(table(options.out))


if __name__ == "__main__":
    guarded(main)
