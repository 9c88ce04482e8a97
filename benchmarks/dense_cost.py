"""What dense evaluation costs beside 50 crops: the paper's argument in section 3.2.

    python -m benchmarks.dense_cost --folder=photos

VGG-16 with random weights, whose answers do not matter here, sees a few photographs at
Q = 256, 384 and 512 with their mirror images: densely, and by 5x5 crops. Prints the
seconds per picture, once everything is compiled, the ratio, and that of the arithmetic.
"""

import argparse
import itertools
import math
import time
from pathlib import Path

import numpy as np
import PIL.Image

import vgg_jax
from vgg_jax import machine
from vgg_jax.data import pictures
from vgg_jax.evaluation import grouping, protocol
from vgg_jax.interop.network import random
from vgg_jax.nn import cost
from vgg_jax.nn.vgg import VGG

SCALES = (256, 384, 512)
SIDES = (500, 375)  # pixels: ImageNet's commonest
# Of what a picture is to a batch: its shape (`grouping.RATIOS`), or its crops.
PIXELS = {
    "dense": lambda scale: math.prod(grouping.shape_for(scale, 4 * scale // 3)),
    "crops": lambda scale: 25 * 224**2,
}


def photographs(folder: Path, count: int) -> list[tuple[np.ndarray, int]]:
    """Returns so many pictures of one size, cut out of the folder's."""
    found = []
    for file in itertools.islice(sorted(folder.glob("*/*.jpg")), count):
        with PIL.Image.open(file) as picture:
            found.append((np.asarray(pictures.rgb(picture).resize(SIDES)), 0))
    return found


def gmacs(model: VGG, height: int, width: int) -> float:
    """Returns the multiplications of one pass over a picture, in billions."""
    specs = model.clone(head="compact").layers((height, width))
    return cost.total(cost.costs(specs)).macs / 1e9


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=4)
    options = parser.parse_args()
    vgg_jax.configure()
    print(machine.environment(), flush=True)
    model = VGG("D")
    network = random(model, "imagenet", size=224)
    source = photographs(options.folder, options.pictures)
    for scale in SCALES:
        seconds = {}
        for way in ("dense", "crops"):
            how = {"protocol": way, "scales": (scale,), "flip": True}
            how["pixels"] = PIXELS[way](scale) * len(source)  # whole batches
            protocol.evaluate([network], source, **how)  # compiles
            start = time.perf_counter()
            protocol.evaluate([network], source, **how)
            seconds[way] = (time.perf_counter() - start) / len(source)
        wide = max(scale, round(SIDES[0] * scale / SIDES[1]))
        work = 25 * gmacs(model, 224, 224) / gmacs(model, scale, wide)
        print(
            f"Q = {scale}: dense {seconds['dense']:.2f} s, 50 crops "
            f"{seconds['crops']:.2f} s per picture, {wide}x{scale} pixels: "
            f"{seconds['crops'] / seconds['dense']:.1f}x, the convolutions' arithmetic "
            f"{work:.1f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
