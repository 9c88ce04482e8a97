"""Measures what is left of an image on its way through an untrained VGG.

    python -m benchmarks.initializers --out=results/blog/signal.png

Networks without batch norm, one per initialiser, look at real images of the embedded
sample, scaled to [0, 1] as the blog does. For each layer, before the ReLU, two root
mean squares are printed and drawn, both as multiples of the input's: that of the
values, and that of what differs between images (the values minus their mean over the
images).
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from vgg_jax import backend, machine
from vgg_jax.data import datasets
from vgg_jax.errors import guarded
from vgg_jax.nn.preprocessing import normalize
from vgg_jax.nn.vgg import VGG
from vgg_jax.runs.curves import COLOURS

INITIALIZERS = ("he", "torchvision", "lecun", "glorot_uniform")
TITLES = ("size of the values", "what differs between images")


def signal(variant, initializer, images):
    """Returns layer -> (size, difference), each as a multiple of the input's."""
    model = VGG(variant=variant, num_classes=10, kernel_init=initializer)
    specs = model.layers(images.shape[1:3], images.shape[3])
    names = [spec.name for spec in specs if spec.has_kernel]

    @jax.jit
    def run():
        variables = model.init(jax.random.key(0), images[:1])
        sown = model.apply(variables, images, mutable=["intermediates"])[1]
        activations = sown["intermediates"]["activations"]
        return [_sizes(activations[name][0]) for name in names]

    return dict(zip(names, np.array(run()) / np.array(_sizes(images)), strict=True))


def _sizes(x):
    rms = lambda a: (a**2).mean() ** 0.5
    return rms(x), rms(x - x.mean(0))


def draw(signals, title):
    """Returns the figure of `{initialiser: signal(...)}`."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for i, panel in enumerate(panels):
        for colour, (name, layers) in zip(COLOURS, signals.items(), strict=False):
            sizes = [pair[i] for pair in layers.values()]
            panel.plot(list(layers), sizes, "o-", color=colour, label=name)
        panel.set(yscale="log", title=TITLES[i])
        panel.tick_params(axis="x", rotation=60)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="relative to the input")
    panels[0].legend(frameon=False)
    figure.suptitle(title)
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="C")
    parser.add_argument("--images", type=int, default=64, help="number of images")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    options = parser.parse_args()
    backend.configure()
    print(machine.environment())
    sample = datasets.load("cifar10_sample", report=lambda text: None).train
    images = normalize(sample.images[: options.images], "unit")
    signals = {name: signal(options.variant, name, images) for name in INITIALIZERS}
    print("| layer | " + " | ".join(INITIALIZERS) + " |")
    print("|---" * (1 + len(INITIALIZERS)) + "|")
    for layer in signals[INITIALIZERS[0]]:
        pairs = (signals[name][layer] for name in INITIALIZERS)
        cells = (" / ".join(f"{size:.2g}" for size in pair) for pair in pairs)
        print(f"| {layer} | " + " | ".join(cells) + " |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    title = f"VGG {options.variant} before training"
    draw(signals, title).savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    guarded(main)
