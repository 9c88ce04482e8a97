"""What is left of an image on its way through VGG at the start, by initialiser.

    python -m benchmarks.initializers --out=results/blog/signal.png

Untrained networks without batch norm look at the real images of the embedded sample
(the blog's [0, 1]). Printed and drawn, layer by layer, before the ReLU: the root mean
square of the values, and of what differs between images (the mean over the images
taken off), as multiples of the input's.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from vgg_jax import backend
from vgg_jax.data import datasets as data
from vgg_jax.errors import guarded
from vgg_jax.nn import cost as layers
from vgg_jax.nn.vgg import VGG
from vgg_jax.runs.figures import COLOURS
from vgg_jax.training import augment

INITIALIZERS = ("he", "torchvision", "lecun", "glorot_uniform")
TITLES = ("size of the values", "what differs between images")


def signal(variant, initializer, images):
    """Layer -> (size, difference), each over the input's."""
    model = VGG(variant=variant, num_classes=10, kernel_init=initializer)
    names = [row.name for row in layers.table(variant, size=images.shape[1])]
    names = [name for name in names if name.startswith(("conv", "fc"))]

    @jax.jit
    def run():
        variables = model.init(jax.random.key(0), images[:1])
        kept = model.apply(variables, images, mutable=["intermediates"])[1]
        kept = kept["intermediates"]["activations"]
        return [_sizes(kept[name][0]) for name in names]

    return dict(zip(names, np.array(run()) / np.array(_sizes(images)), strict=True))


def _sizes(x):
    rms = lambda a: (a**2).mean() ** 0.5  # noqa: E731
    return rms(x), rms(x - x.mean(0))


def draw(found, title):
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for i, panel in enumerate(panels):
        for colour, name in zip(COLOURS, found, strict=False):
            values = [row[i] for row in found[name].values()]
            panel.plot(list(found[name]), values, "o-", color=colour, label=name)
        panel.set(yscale="log", title=TITLES[i])
        panel.tick_params(axis="x", rotation=60)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="of the input's")
    panels[0].legend(frameon=False)
    figure.suptitle(title)
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="C")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    backend.configure()
    print(backend.environment())
    sample = data.load("cifar10_sample", report=lambda text: None).train
    images = augment.normalize(sample.images[: options.images], "unit")
    found = {name: signal(options.variant, name, images) for name in INITIALIZERS}
    print("| layer | " + " | ".join(INITIALIZERS) + " |")
    print("|---" * (1 + len(INITIALIZERS)) + "|")
    for layer in found[INITIALIZERS[0]]:
        cells = (" / ".join(f"{v:.2g}" for v in found[n][layer]) for n in INITIALIZERS)
        print(f"| {layer} | " + " | ".join(cells) + " |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(found, f"VGG {options.variant} before training").savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    guarded(main)
