"""vgg_jax: a folder of pictures by `predictions`, or the network alone on pixels."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
from serve import read_job, serve

import vgg_jax
from vgg_jax.data import pictures
from vgg_jax.inference.predict import predictions, probabilities

job = read_job()
vgg_jax.configure()


def main():
    network = vgg_jax.load(job["weights"]).configured(dtype="float32")
    files = sorted(Path(job["folder"]).iterdir())
    batch = job["batch"]
    if job["bare"]:
        images = np.stack([pictures.read(file, network.size) for file in files])
        run = jax.jit(partial(probabilities, views=1))

        def once():
            for start in range(0, len(files) - batch + 1, batch):
                np.asarray(run(network, images[start : start + batch]))
    else:

        def once():
            for _ in predictions(network, files, batch_size=batch):
                pass

    def steps(n):
        for _ in range(n):
            once()

    serve(steps)


main()
