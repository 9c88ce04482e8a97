"""The machine's peak of matrix products in one type: the best of a few sizes."""

import time

import jax
import jax.numpy as jnp
from serve import read_job, serve

from vgg_jax import backend

backend.configure()


def main():
    job = read_job()
    dot = jax.jit(jnp.matmul)
    matrices = {}  # by their rate
    for n in (1024, 2048, 4096):
        a = jnp.ones((n, n), job["dtype"])
        dot(a, a).block_until_ready()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            dot(a, a).block_until_ready()
            times.append(time.perf_counter() - start)
        matrices[2 * n**3 / min(times)] = a
    a = matrices[max(matrices)]

    def steps(n):
        for _ in range(n):
            product = dot(a, a)
        product.block_until_ready()

    serve(steps, flop_per_step=2 * len(a) ** 3)


main()
