"""Draws the class map of docs/protocol.md: a network applied to a large picture.

    python -m benchmarks.dense_picture --out=docs/images

The picture is made of 24 test images of CIFAR-10, so that it is known what is where.
The network was trained on single ones, of 32 pixels; applied densely to the whole, it
gives a posterior for every 32 pixels in one pass.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import vgg_jax
from benchmarks.features_picture import PAGES
from vgg_jax.data import datasets
from vgg_jax.errors import guarded
from vgg_jax.nn.dense import activation_map
from vgg_jax.nn.preprocessing import normalize
from vgg_jax.nn.softmax import softmax

ROWS, COLUMNS, SIDE = 4, 6, 32
CLASSES = ("ship", "dog", "automobile")


def mosaic(images: np.ndarray) -> np.ndarray:
    """Returns one picture `[ROWS * SIDE, COLUMNS * SIDE, 3]`."""
    rows = images.reshape(ROWS, COLUMNS, SIDE, SIDE, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(ROWS * SIDE, COLUMNS * SIDE, 3)


def class_map(network: vgg_jax.Network, picture: np.ndarray) -> np.ndarray:
    """Returns the posteriors of each place of a picture `[h, w, K]`."""
    images = normalize(picture[None], network.preprocessing)
    found = activation_map(network.model, network.variables, images)
    return np.asarray(softmax(found)[0])


def draw(network: vgg_jax.Network, picture: np.ndarray) -> Figure:
    """Returns the picture, and the posterior of three classes over it."""
    figure = Figure(figsize=(7, 5.1), layout="constrained")
    panels = figure.subplots(2, 2).flat
    next(panels).imshow(picture)
    figure.axes[0].set_title(f"{picture.shape[1]} x {picture.shape[0]} pixels")
    found = class_map(network, picture)
    whole = (0, COLUMNS * SIDE, ROWS * SIDE, 0)
    for panel, name in zip(panels, CLASSES, strict=True):
        label = network.class_names.index(name)
        panel.imshow(picture.mean(-1), cmap="gray", extent=whole)
        posterior = found[..., label]
        shown = panel.imshow(
            posterior, extent=whole, cmap="magma", vmin=0, vmax=0.5, alpha=0.65
        )
        panel.set_title(f"posterior of {name}")
        places = np.argwhere(posterior > 0.3).tolist()
        print(f"{name}: above 0.3 at (row, column) {places}")
    for panel in figure.axes:
        panel.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=figure.axes, shrink=0.7)
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="vgg11_bn")
    parser.add_argument("--out", type=Path, required=True, help="a directory")
    options = parser.parse_args()
    vgg_jax.configure()
    network = vgg_jax.load(options.weights).configured(dtype="float32", conv="lax")
    test = datasets.load("cifar10_sample", validation="none").test
    count = ROWS * COLUMNS
    for name in CLASSES:
        label = network.class_names.index(name)
        places = np.flatnonzero(test.labels[:count] == label)
        rows = [list(divmod(place, COLUMNS)) for place in places.tolist()]
        print(f"{name}: is at {rows}")
    for page, (ink, paper) in PAGES.items():
        names = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
        colours = dict.fromkeys(names, ink)
        frames = {"axes.edgecolor": paper, "figure.facecolor": paper}
        with rc_context({**colours, **frames, "font.size": 13}):
            figure = draw(network, mosaic(test.images[:count]))
            figure.savefig(options.out / f"dense-{page}.png", dpi=110)


if __name__ == "__main__":
    guarded(main)
