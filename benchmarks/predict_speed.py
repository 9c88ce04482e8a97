"""Pictures per second of `vgg predict` on a folder, beside the network and PyTorch.

    python -m benchmarks.predict_speed --weights=vgg11_bn

Writes CIFAR-10's 10,000 test images as PNG files, then has three programs classify them
in turns, on the same cores, in float32 with the same weights: `predictions`, as the
command runs it; the network alone, on pixels that are in memory; and a PyTorch script,
eager and by `torch.compile`, whose threads decode too. Weights must be of VGG-11 with
batch norm, which torchvision has. PyTorch needs the environment of
`benchmarks/parity.py`.
"""

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

import PIL.Image

import vgg_jax
from benchmarks.peer import MALLOC, Peer, Process
from vgg_jax import machine
from vgg_jax.data import datasets

OURS, BARE = "vgg predict", "the network alone"
_EAGER, _COMPILE = ("compile", False), ("compile", True)
PEERS = {
    OURS: Peer("predict_ours.py", settings=(("bare", False),)),
    BARE: Peer("predict_ours.py", settings=(("bare", True),)),
    **{
        f"{name}{tuned}": Peer("predict_torch.py", "parity", (mode,), environ)
        for (name, mode), (tuned, environ) in itertools.product(
            (("torch", _EAGER), ("torch.compile", _COMPILE)),
            (("", ()), (" tuned", (MALLOC,))),
        )
    },
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="vgg11_bn")
    parser.add_argument("--split", default="test")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine.environment(), flush=True)
    network = vgg_jax.load(options.weights)
    images = datasets.one_split("cifar10", options.split)[0].images
    mean, std = network.preprocessing.statistics
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pictures"
        folder.mkdir()
        for i, pixels in enumerate(images):
            PIL.Image.fromarray(pixels).save(folder / f"{i:05}.png")
        weights = f"{scratch}/torchvision.safetensors"
        vgg_jax.save(network, weights, convention="torchvision")
        job = {
            "weights": weights,
            "torch_weights": weights,
            "folder": str(folder),
            "batch": options.batch,
            "mean": mean,
            "std": std,
        }
        running = {name: Process(peer, job) for name, peer in PEERS.items()}
        for _ in range(options.rounds):
            for process in running.values():
                process.seconds.append(process.ask(1))
    for name, process in running.items():
        process.close()
        rate = len(images) / statistics.median(process.seconds)
        pairs = zip(process.seconds, running[OURS].seconds, strict=True)
        ratio = statistics.median(other / ours for other, ours in pairs)
        print(f"  {name:20} {rate:8,.0f} pictures/s   {OURS} is {ratio:.2f}x")


if __name__ == "__main__":
    main()
