"""jaxlpips with random weights: its own are fetched from a hub."""

from serve import read_job, serve

job = read_job()

import jax  # noqa: E402
import jaxlpips.lpips  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402
from jaxlpips.modules import VGG16Features  # noqa: E402


def main():
    rng = np.random.default_rng(0)
    heads = nnx.List([jax.numpy.ones((1, 1, 1, c)) for c in (64, 128, 256, 512, 512)])
    jaxlpips.lpips.load_model = lambda name: (VGG16Features(rngs=nnx.Rngs(0)), heads)
    loss = jaxlpips.LPIPS("vgg16")
    shape = (job["batch"], job["size"], job["size"], 3)
    x, y = (jax.device_put(rng.random(shape, np.float32) * 2 - 1) for _ in range(2))

    @nnx.jit
    def compare(loss, x, y):
        return jax.value_and_grad(lambda x: loss(x, y).sum())(x)

    def steps(n):
        for _ in range(n):
            found = compare(loss, x, y)
        jax.block_until_ready(found)

    serve(steps)


main()
