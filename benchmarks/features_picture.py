"""Draws the picture of docs/features.md: activations by name, and what a loss sees.

    python -m benchmarks.features_picture --network runs/quickstart --out docs/images

Above, an image of CIFAR-10 and the channels that respond most to it. Below, changes of
the image, each as strong as gives one mean squared error, and the perceptual loss of
each.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import vgg_jax
from vgg_jax.data import datasets
from vgg_jax.errors import guarded
from vgg_jax.inference.losses import perceptual_loss

IMAGE = 12  # of the sample's test split
LAYERS = ("relu1_1", "relu2_1", "relu3_2", "relu4_2", "relu5_2")
CONTENT = ("relu3_2",)
ERROR = 0.004  # mean squared error, where black is 0 and white is 1
PAGES = {"light": ("#1f2328", "#ffffff"), "dark": ("#e2e4e9", "#1e2129")}

Change = Callable[[np.ndarray, float], np.ndarray]


def blurred(image: np.ndarray, strength: float) -> np.ndarray:
    """Convolves `[1, H, W, C]` with a Gaussian, edges repeated."""
    at = np.arange(-6, 7)
    weights = np.exp(-(at**2) / (2 * (1e-3 + 4 * strength) ** 2))
    for axis in (1, 2):
        pad = [(6, 6) if i == axis else (0, 0) for i in range(4)]
        padded, size = np.pad(image, pad, mode="edge"), image.shape[axis]
        shifted = [padded.take(range(i, i + size), axis) for i in range(len(at))]
        image = np.tensordot(weights / weights.sum(), shifted, 1)
    return image


_NOISE = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
CHANGES: dict[str, Change] = {
    "darker": lambda x, strength: x * (1 - strength),
    "brighter": lambda x, strength: x + strength * (1 - x),
    "less contrast": lambda x, strength: x + strength * (x.mean() - x),
    "noise": lambda x, strength: x + strength * _NOISE,
    "blur": blurred,
}


def as_strong(image: np.ndarray, change: Change) -> np.ndarray:
    """Returns the changed image, in [0, 1], whose mean squared error is `ERROR`."""
    weak, strong = 0.0, 1.0
    changed = image
    for _ in range(30):
        strength = (weak + strong) / 2
        changed = change(image, strength).clip(0, 1).astype(np.float32)
        below = np.square(changed - image).mean() < ERROR
        weak, strong = (strength, strong) if below else (weak, strength)
    return changed


def strongest(activation: np.ndarray) -> np.ndarray:
    """Returns the four channels of `[H, W, C]` with the largest means, two by two."""
    four = activation.mean((0, 1)).argsort()[:-5:-1]
    a, b, c, d = (activation[..., i] / activation[..., i].max() for i in four)
    return np.block([[a, b], [c, d]])


def draw(image: np.ndarray, network: vgg_jax.Network) -> Figure:
    """Returns both rows, of six panels each."""
    figure = Figure(figsize=(9, 4.3), layout="constrained")
    seen, changed = figure.subfigures(2)
    seen.suptitle("activations: the four channels that respond most", x=0, ha="left")
    changed.suptitle(
        f"perceptual loss, all of mean squared error {ERROR}", x=0, ha="left"
    )
    found = vgg_jax.features(network, image, LAYERS, value_range=(0, 1))
    panels = {"image": (image[0], "32 x 32 x 3")}
    for name, activation in found.items():
        _, height, width, channels = activation.shape
        shown = strongest(np.asarray(activation[0]))
        panels[name] = (shown, f"{height} x {width} x {channels}")
    _row(seen, panels)
    panels = {"image": (image[0], "0")}
    for name, change in CHANGES.items():
        other = as_strong(image, change)
        loss = perceptual_loss(
            network, other, image, value_range=(0, 1), content=CONTENT
        )
        panels[name] = (other[0], f"{float(loss[0]):.3f}")
        print(f"{name}: {np.square(other - image).mean():.4f}, {float(loss[0]):.4f}")
    _row(changed, panels)
    return figure


def _row(figure, panels: dict[str, tuple[np.ndarray, str]]) -> None:
    axes = figure.subplots(1, len(panels))
    for panel, (title, (pixels, below)) in zip(axes, panels.items(), strict=True):
        panel.imshow(pixels, cmap="magma", vmin=0, vmax=1)
        panel.set_title(title, fontsize=12)
        panel.set_xlabel(below)
        panel.set(xticks=[], yticks=[])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", required=True, help="what `vgg_jax.load` takes")
    parser.add_argument("--out", type=Path, required=True, help="a directory")
    options = parser.parse_args()
    vgg_jax.configure()
    network = vgg_jax.load(options.network).configured(dtype="float32")
    print(f"{options.network}: {network.model.variant}, SHA-256 {network.sha256[:16]}")
    test = datasets.load("cifar10_sample", validation="none").test
    image = np.asarray(test.images[IMAGE : IMAGE + 1], np.float32) / 255
    for page, (ink, paper) in PAGES.items():
        colours = dict.fromkeys(("text.color", "axes.labelcolor"), ink)
        frames = {"axes.edgecolor": paper, "figure.facecolor": paper}
        with rc_context({**colours, **frames, "font.size": 13}):
            draw(image, network).savefig(options.out / f"features-{page}.png", dpi=120)


if __name__ == "__main__":
    guarded(main)
