"""Makes an entry of the zoo from a finished run: its weights, a card, its log.

    python -m benchmarks.zoo_entry --workdir=runs/speedrun --name=speedrun \\
        --title="seven convolutions, whitened" --log=runs/speedrun.txt

The weights are those that the run is tested with, in float16; the accuracies on the
card are measured on the file that was written, as `vgg evaluate` measures them. The log
is what the run printed, kept in results/zoo/.
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import jax

import vgg_jax
from vgg_jax.data import datasets
from vgg_jax.evaluation import of_network
from vgg_jax.interop.zoo import Card
from vgg_jax.runs.run_record import RunRecord

ROOT = Path(__file__).resolve().parents[1]
DTYPE = "float16"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--title", required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    vgg_jax.configure()
    record = RunRecord(options.workdir)
    assert record.result, f"{options.workdir} is not finished"
    made, config = record.result["environment"], record.config
    file = ROOT / "zoo" / f"{options.name}.safetensors"
    network = vgg_jax.load(options.workdir).configured(dtype="float32")
    network = network.replace(source=f"runs/{options.name}")  # wherever it lay
    vgg_jax.save(network, file, dtype=DTYPE, overwrite=True)
    split, *_ = datasets.one_split(config["data"]["name"], "test")
    network, accuracy = vgg_jax.load(file), {}
    for views in sorted({1, config["views"]}):
        score = of_network.score(network, split, views=views)
        accuracy[str(views)] = score.accuracy
        print(f"{views} views: {score.accuracy:.2%}", flush=True)
    log = ROOT / "results" / "zoo" / f"{options.name}.txt"
    log.parent.mkdir(exist_ok=True)
    shutil.copy(options.log, log)
    card = Card(
        title=options.title,
        dataset=config["data"]["name"],
        accuracy=accuracy,
        views=config["views"],
        command=made["command"],
        seed=config["seed"],
        commit=made.get("commit", ""),
        hardware=f"{made['device']}, {made['processor']}",
        log=str(log.relative_to(ROOT)),
        parameters=sum(
            leaf.size for leaf in jax.tree.leaves(network.variables["params"])
        ),
        dtype=DTYPE,
        bytes=file.stat().st_size,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    text = json.dumps(dataclasses.asdict(card), indent=2) + "\n"
    file.with_suffix(".json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
