"""Trains a loaded VGG further in a program that is written in flax.nnx.

    python -m examples.nnx_bridge --weights runs/quickstart --out tuned.safetensors

`module_of` makes an nnx module of a network, with its weights; `network_of` takes them
back, for `vgg_jax.save`. A network that does not train, as under a perceptual loss,
needs no bridge: `features` is a function, and `Network` a pytree.
"""

import argparse

import jax
import optax
from flax import nnx
from flax.nnx import bridge

import vgg_jax
from vgg_jax.data import datasets
from vgg_jax.errors import guarded
from vgg_jax.nn.images import network_input

# Flax's collections of variables, and nnx' types of them.
COLLECTIONS = {"params": nnx.Param, "batch_stats": nnx.BatchStat}


def module_of(network: vgg_jax.Network, seen: jax.Array) -> nnx.Module:
    """Returns an nnx module with the weights of a network.

    Args:
        network: as `vgg_jax.load` returns it.
        seen: images as `network_input` returns them, for their shape.
    """
    rngs = nnx.Rngs(params=0, dropout=1)
    module = bridge.ToNNX(network.model, rngs=rngs).lazy_init(seen)
    for name, values in network.variables.items():
        state = nnx.state(module, COLLECTIONS[name])
        nnx.replace_by_pure_dict(state, values)
        nnx.update(module, state)
    return module


def network_of(module: nnx.Module, network: vgg_jax.Network) -> vgg_jax.Network:
    """Returns the network with the weights of its nnx module."""
    variables = {
        name: nnx.to_pure_dict(nnx.state(module, COLLECTIONS[name]))
        for name in network.variables
    }
    return network.with_variables(variables, source="nnx")


@nnx.jit
def train_step(
    module: nnx.Module, optimizer: nnx.Optimizer, seen: jax.Array, labels: jax.Array
) -> jax.Array:
    """Updates module and optimizer; returns the loss before."""

    def loss(module):
        logits = module(seen, train=True, mutable=["batch_stats"])
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        return cross_entropy(logits, labels).mean()

    value, gradient = nnx.value_and_grad(loss)(module)
    optimizer.update(module, gradient)
    return value


def main(options: argparse.Namespace):
    network = vgg_jax.load(options.weights)
    train = datasets.load("cifar10_sample", validation="none").train
    batch = slice(0, options.batch_size)
    seen = network_input(train.images[batch], network.preprocessing)
    module = module_of(network, seen)
    optimizer = nnx.Optimizer(module, optax.sgd(options.lr, 0.9), wrt=nnx.Param)
    for step in range(options.steps):
        loss = train_step(module, optimizer, seen, train.labels[batch])
        print(f"step {step + 1}  loss {loss:.3f}")
    vgg_jax.save(network_of(module, network), options.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="what vgg_jax.load takes")
    parser.add_argument("--out", required=True, help="a new .safetensors")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    vgg_jax.configure()
    guarded(main, parser.parse_args())
