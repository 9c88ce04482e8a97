"""Compares the estimate of a training step's memory with XLA's plan for it.

For networks, sizes and batches of many kinds: the bytes of the arguments and of the
temporary buffers of the compiled step, and what `cost.training_bytes` says. The last
lines are of networks that had no part in the estimate's factors.

    python -m benchmarks.memory
    python -m benchmarks.memory --remat=stage
"""

import argparse
import itertools

import jax
import numpy as np

from vgg_jax import backend, machine
from vgg_jax import mesh as meshes
from vgg_jax.data.batches import TrainingBatch
from vgg_jax.nn import cost
from vgg_jax.nn.vgg import REMAT, VGG
from vgg_jax.training import step
from vgg_jax.training.augment import Augment
from vgg_jax.training.sgd import SGD

FITTED = (  # configuration, pixels, images, head, width
    ("A", 32, 128, "compact", 1.0), ("D", 32, 128, "compact", 1.0),
    ("D", 32, 512, "compact", 1.0), ("C", 224, 32, "paper", 1.0),
    ("D", 224, 32, "compact", 1.0), ("A", 64, 64, "compact", 1.0),
    ("B", 112, 32, "paper", 1.0), ("D", 224, 8, "paper", 1.0),
)  # fmt: skip
OTHERS = (
    ("E", 224, 16, "paper", 1.0), ("E", 32, 256, "compact", 1.0),
    ("A", 32, 64, "compact", 0.5), ("C", 96, 64, "adaptive", 0.5),
    ("B", 160, 24, "compact", 1.0), ("D", 32, 32, "compact", 1.0),
)  # fmt: skip


def planned(model: VGG, size: int, batch: int) -> int:
    """Returns the bytes that XLA plans for a training step.

    Args:
        model: the network.
        size: height and width of the images in pixels.
        batch: images per step.
    """
    recipe = step.Recipe(
        model=model,
        augment=Augment(normalize="cifar10"),
        optimizer=SGD().transformation(),
        schedule=lambda _: 1e-3,
    )
    shape = (size, size, 3)
    state = jax.eval_shape(lambda: step.init(recipe, seed=0, image_shape=shape))
    images = TrainingBatch(
        images=jax.ShapeDtypeStruct((batch, *shape), np.uint8),
        labels=jax.ShapeDtypeStruct((batch,), np.int32),
        index=jax.ShapeDtypeStruct((batch,), np.int32),
        epoch=jax.ShapeDtypeStruct((), np.int32),
    )
    train, _ = step.compiled(recipe, meshes.over(1))
    plan = train.lower(state, images).compile().memory_analysis()
    return plan.temp_size_in_bytes + plan.argument_size_in_bytes


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--remat", default="none", choices=REMAT)
    remat = parser.parse_args().remat
    backend.configure()
    print(machine.environment(), flush=True)
    for networks in (FITTED, OTHERS):
        errors = []
        for network, dtype, norm in itertools.product(
            networks, cost.BYTES, (False, True)
        ):
            variant, size, batch, head, width = network
            model = VGG(
                variant,
                10,
                head=head,
                width=width,
                dtype=dtype,
                batch_norm=norm,
                remat=remat,
            )
            rows = cost.costs(model.layers((size, size)))
            kind = {"batch_size": batch, "dtype": dtype, "remat": remat}
            kind["fused"] = machine.prefers_kernels(dtype)
            said = sum(cost.training_bytes(rows, **kind))
            plan = planned(model, size, batch)
            errors.append(said / plan - 1)
            print(
                f"{variant} {size:3} px, {batch:3} images, {head:8} width {width:3} "
                f"{dtype:8} {'batch norm' if norm else '':10} "
                f"XLA {plan / 1e9:6.3f} GB, estimate {said / 1e9:6.3f} "
                f"({errors[-1]:+.0%})",
                flush=True,
            )
        print(f"from {min(errors):+.0%} to {max(errors):+.0%}", flush=True)


if __name__ == "__main__":
    main()
