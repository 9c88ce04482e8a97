"""vgg_jax: `features` and `lpips` as a program calls them."""

from functools import partial

import jax
import numpy as np
from serve import read_job, serve

import vgg_jax
from vgg_jax.inference.features import features
from vgg_jax.inference.lpips import lpips
from vgg_jax.interop.network import random

job = read_job()
vgg_jax.configure()


def main():
    network = random(vgg_jax.VGG("D", head="compact"), "imagenet")
    shape = (job["batch"], job["size"], job["size"], 3)
    rng = np.random.default_rng(0)
    x, y = (jax.device_put(rng.random(shape, np.float32)) for _ in range(2))

    @jax.jit
    def extract(network, x):
        return features(network, x, ["relu4_3"], value_range=(0, 1))

    @jax.jit
    def compare(network, x, y):
        distance = partial(lpips, value_range=(0, 1), random_weights=True)
        total = lambda x: distance(network, x, y).sum()
        return jax.value_and_grad(total)(x)

    def steps(n):
        for _ in range(n):
            if job["task"] == "lpips":
                found = compare(network, x, y)
            else:
                found = extract(network, x)
        jax.block_until_ready(found)

    serve(steps)


main()
