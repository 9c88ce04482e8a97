"""Makes the picture of docs/style.md: a photograph, a pattern, and what comes of them.

    python -m benchmarks.style_picture --weights runs/quickstart \\
        --out docs/images/style.jpg

The photograph is scikit-learn's `china.jpg`; the pattern, strokes along eddies in the
colours of a night sky, is drawn here. `examples/style_transfer.py` does the rest.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

SIDE = 512  # pixels, longer side of the painted picture
GAP = 6
BLUES = ((16, 32, 84), (24, 60, 130), (40, 96, 170), (92, 150, 206), (160, 200, 226))
YELLOWS = ((248, 216, 96), (240, 176, 56), (252, 238, 180))


class Eddies:
    """Where strokes go, and how near they are to the middle of an eddy."""

    def __init__(self, rng, size, count=7):
        self.middles = rng.uniform(0.1, 0.9, (count, 2)) * size
        self.turns = rng.choice((-1, 1), count)
        self.reach = rng.uniform(90, 220, count)

    def __call__(self, at):
        x, y = (at - self.middles).T
        far = np.hypot(x, y)
        pull = np.exp(-((far / self.reach) ** 2)) * self.turns / (far + 1)
        course = np.array([-y @ pull + 0.25, x @ pull + 0.08 * np.sin(at[0] / 90)])
        near = np.exp(-((far / (0.45 * self.reach)) ** 2)).max()
        return course / np.hypot(*course), near


def pattern(width=512, height=384, strokes=9000):
    """Returns the pattern, drawn at twice its size."""
    rng, size = np.random.default_rng(0), (2 * width, 2 * height)
    eddies = Eddies(rng, size)
    image = Image.new("RGB", size, BLUES[0])
    draw = ImageDraw.Draw(image)
    for _ in range(strokes):
        path = [rng.uniform((0, 0), size)]
        near = eddies(path[0])[1]
        for _ in range(10):
            path.append(path[-1] + 5 * eddies(path[-1])[0])
        palette = YELLOWS if rng.random() < 0.85 * near else BLUES
        colour = palette[rng.integers(len(palette))] + rng.integers(-14, 15, 3)
        fill = tuple(np.clip(colour, 0, 255).tolist())
        points = [tuple(point) for point in path]
        draw.line(points, fill=fill, width=int(rng.integers(4, 10)), joint="curve")
    return image.resize((width, height), Image.Resampling.LANCZOS)


def beside(content, style, painted):
    """Returns the first two above the third, all as wide as it is."""
    width = (painted.width - GAP) // 2
    height = width * content.height // content.width
    size = (painted.width, height + GAP + painted.height)
    page = Image.new("RGB", size, "white")
    for i, picture in enumerate((content, style)):
        share = width / height * picture.height / picture.width  # cropped to the shape
        box = (0, 0, picture.width, round(picture.height / max(share, 1)))
        small = picture.resize((width, height), Image.Resampling.LANCZOS, box)
        page.paste(small, (i * (painted.width - width), 0))
    page.paste(painted, (0, height + GAP))
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", required=True, help="what vgg_jax.load takes")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        names = ("content", "style", "painted")
        paths = {name: f"{directory}/{name}.png" for name in names}
        Image.fromarray(load_sample_image("china.jpg")).save(paths["content"])
        pattern().save(paths["style"])
        command = [sys.executable, "-m", "examples.style_transfer"]
        command += ["--weights", options.weights, "--content", paths["content"]]
        command += ["--style", paths["style"], "--out", paths["painted"]]
        command += ["--size", str(SIDE)]
        begin = time.monotonic()
        subprocess.run(command, check=True)
        print(f"{time.monotonic() - begin:.0f} s")
        pictures = [Image.open(path) for path in paths.values()]
        beside(*pictures).save(options.out, quality=88)
    print(options.out, options.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
