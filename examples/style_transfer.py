"""Paints one picture in the style of another (Gatys et al., 2016), with any VGG.

    python -m examples.style_transfer --weights runs/quickstart \\
        --content photo.jpg --style painting.jpg --out painted.png

Adam changes the pixels of the content: at a quarter of its size, at half, at the whole.
Differences are relative to what they differ from, so one weight suits every network.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image
from rich.progress import Progress

import vgg_jax
from vgg_jax.errors import guarded
from vgg_jax.inference.losses import gram, total_variation

CONTENT = ("relu3_1",)
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
SCALES = (4, 2, 1)  # --size is divided by each in turn
RATE = 0.02  # Adam's, where black is 0 and white is 1


def read(path: str, side: int) -> jax.Array:
    """Returns a picture whose longer side is `side`: `[1, H, W, 3]` in [0, 1]."""
    with Image.open(path) as picture:
        size = [
            max(1, round(length * side / max(picture.size))) for length in picture.size
        ]
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return jnp.asarray(np.asarray(small, np.float32)[None] / 255)


def relative(x: jax.Array, wanted: jax.Array) -> jax.Array:
    return ((x - wanted) ** 2).sum() / (wanted**2).sum()


def paint(network, picture, content, style, options):
    """Yields the loss before each step, and the picture after it."""
    see = partial(vgg_jax.features, network, value_range=(0, 1))
    wanted, grams = see(content, CONTENT), jax.tree.map(gram, see(style, STYLE))

    def loss(picture):
        seen = see(picture, (*CONTENT, *STYLE))
        far = sum(relative(seen[name], x) for name, x in wanted.items())
        strange = sum(relative(gram(seen[name]), x) for name, x in grams.items())
        rough = total_variation(picture).sum() / picture.size
        return far + options.style_weight * strange + options.smooth * rough

    @jax.jit
    def step(picture, state):
        value, slope = jax.value_and_grad(loss)(picture)
        update, state = optimiser.update(slope, state)
        return jnp.clip(optax.apply_updates(picture, update), 0, 1), state, value

    optimiser = optax.adam(RATE)
    state = optimiser.init(picture)
    for _ in range(options.steps):
        picture, state, value = step(picture, state)
        yield float(value), picture


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", required=True, help="what vgg_jax.load takes")
    parser.add_argument("--content", required=True, help="the picture to paint")
    parser.add_argument("--style", required=True, help="the picture to paint it like")
    parser.add_argument("--out", default="painted.png")
    parser.add_argument("--steps", type=int, default=60, help="at each of three sizes")
    parser.add_argument("--size", type=int, default=384, help="longer side, pixels")
    parser.add_argument("--style_weight", type=float, default=5.0)
    parser.add_argument("--smooth", type=float, default=1.0, help="0: no smoothing")
    options = parser.parse_args()
    vgg_jax.configure()
    network = vgg_jax.load(options.weights)
    network = network.configured(pool="average", dtype="float32")
    picture = read(options.content, options.size // SCALES[0])
    with Progress() as bar:
        task = bar.add_task("painting", total=len(SCALES) * options.steps)
        for side in (options.size // scale for scale in SCALES):
            content, style = read(options.content, side), read(options.style, side)
            start = jax.image.resize(picture, content.shape, "bilinear")
            for loss, picture in paint(network, start, content, style, options):  # noqa: B007
                text = f"painting at {side} px, loss {loss:.3f}"
                bar.update(task, advance=1, description=text)
    pixels = np.asarray(255 * picture[0]).round().astype(np.uint8)
    Image.fromarray(pixels).save(options.out)
    print(options.out)


if __name__ == "__main__":
    guarded(main)
