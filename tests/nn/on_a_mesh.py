"""Values and gradients with the batch spread over four devices, beside one device's.

Prints, for each case and kind of mesh axis, the largest relative error and how the
gradient by the batch is spread. Run by `test_meshes.py` in a process of its own: the
number of devices is fixed when JAX starts.
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from vgg_jax.inference.losses import perceptual_loss
from vgg_jax.interop.network import random
from vgg_jax.nn.conv import IMPLEMENTATIONS, conv2d
from vgg_jax.nn.normalization import batch_norm
from vgg_jax.nn.pooling import average_pool, max_pool, pool2d
from vgg_jax.nn.vgg import VGG

BATCH = 8
# One of each algorithm on CPU: Winograd, few and many channels with flipped kernels,
# narrow maps side by side, a matrix of the whole, Karatsuba, few pixels, 1x1.
CONVOLUTIONS = [
    (8, 32, 3, "float32"),
    (8, 3, 3, "float32"),
    (4, 32, 3, "bfloat16"),
    (3, 4, 5, "float32"),
    (2, 4, 3, "float32"),
    (2, 1400, 3, "bfloat16"),  # few pixels on each device
    (4, 4, 1, "float32"),
]


def numbers(*shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def network(conv):
    """A network in training: name, function of images and parameters, and these."""
    model = VGG(
        "conv3-8 | conv3-8 conv1-8 |", 4, batch_norm=True, hidden=(8,), conv=conv
    )
    x = numbers(BATCH, 8, 8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    params = variables.pop("params")

    def apply(x, params):
        logits, _ = model.apply(
            {"params": params, **variables},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return logits

    return f"{conv} network", apply, x, params


def perceptual():
    """Johnson's loss: name, function of images and a network, and these."""
    model = VGG("conv3-8 | conv3-8 |", 4, head="compact")

    def apply(x, network):
        return perceptual_loss(
            network,
            x,
            -x,
            value_range=(-1, 1),
            content=("relu2_1",),
            style=("relu1_1", "pool2"),
            random_weights=True,
        )

    x = jnp.tanh(numbers(BATCH, 8, 8, 3))
    return "perceptual loss", apply, x, random(model, "imagenet", size=8)


def layers():
    """Yields a name, a function, the batch and what every device has whole."""
    yield "max pool", max_pool, numbers(BATCH, 8, 8, 5)
    yield "fast max pool", partial(pool2d, kind="max"), numbers(BATCH, 9, 8, 5)
    yield "max pool of odd maps", max_pool, numbers(BATCH, 7, 9, 5)
    yield "average pool of odd maps", average_pool, numbers(BATCH, 7, 9, 5)
    normalized = lambda *a: batch_norm(*a)[0]
    yield "batch norm", normalized, numbers(BATCH, 4, 4, 5), numbers(5), numbers(5)
    yield convolution("lax", 4, 4, 3, "float32")
    for shape in CONVOLUTIONS:
        yield convolution("auto", *shape)


def convolution(name, size, channels, kernel, dtype):
    """A layer whose outputs are about 1, of which a sine loses no digits."""
    w = numbers(kernel, kernel, channels, 6) / (kernel * channels**0.5)
    return (
        f"{name} {kernel}x{kernel} of {size}x{size}x{channels} {dtype}",
        partial(conv2d, implementation=name),
        numbers(BATCH, size, size, channels, dtype=dtype),
        w.astype(dtype),
        numbers(6, dtype=dtype),
    )


def with_gradients(function):
    """Returns `function`, its mean after a sine, and that one's gradients."""

    def loss(*arrays):
        y = function(*arrays)
        return jnp.sin(y).mean(dtype=jnp.float32), y

    @jax.jit
    def call(*arrays):
        arguments = tuple(range(len(arrays)))
        return jax.value_and_grad(loss, arguments, has_aux=True)(*arrays)

    return call


def error(got, want):
    """Norm of the difference of two trees relative to that of the second."""
    got, want = (
        np.concatenate([np.ravel(a).astype(np.float64) for a in jax.tree.leaves(tree)])
        for tree in (got, want)
    )
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def compare(kind, name, function, x, *whole):
    (_, want), by_arrays = with_gradients(function)(x, *whole)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    split, everywhere = (NamedSharding(mesh, spec) for spec in (P("data"), P()))
    with jax.set_mesh(mesh):
        arrays = jax.device_put(x, split), *jax.device_put(whole, everywhere)
        (_, got), by_sharded = with_gradients(function)(*arrays)
    pairs = (got, want), *zip(by_sharded, by_arrays, strict=True)
    spread = by_sharded[0].sharding.spec[0]
    worst = max(error(*pair) for pair in pairs)
    print(json.dumps([name, kind.name, worst, spread]), flush=True)


def main():
    assert jax.make_mesh((4,), ("data",)).axis_types == (AxisType.Explicit,)
    for layer in layers():
        compare(AxisType.Explicit, *layer)
    for conv in IMPLEMENTATIONS:
        for kind in (AxisType.Explicit, AxisType.Auto):
            compare(kind, *network(conv))
    for kind in (AxisType.Explicit, AxisType.Auto):
        compare(kind, *perceptual())


if __name__ == "__main__":
    main()
