"""What a user of Flax would write: `nn.Conv`, `nn.max_pool`, `optax.sgd`, one jit."""

from serve import jax_memory, read_job, serve

job = read_job()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import linen as nn  # noqa: E402

TABLE = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
WIDTHS = [round(channels * job["width"]) for channels in TABLE]
DTYPE = jnp.dtype(job["dtype"])


class VGG16(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for width in WIDTHS:
            if not width:
                x = nn.max_pool(x, (2, 2), (2, 2))
                continue
            x = nn.Conv(width, (3, 3), dtype=DTYPE)(x)
            if job["batch_norm"]:
                x = nn.BatchNorm(not train, momentum=0.9, dtype=DTYPE)(x)
            x = nn.relu(x)
        return nn.Dense(10, dtype=DTYPE)(x.mean((1, 2))).astype(jnp.float32)


def main():
    model = VGG16()
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(1e-3, 0.9))
    numbers = np.random.default_rng(0)
    shape = (job["batch"], job["size"], job["size"], 3)
    images = jnp.asarray(numbers.normal(size=shape), jnp.float32)
    labels = jnp.asarray(numbers.integers(0, 10, job["batch"]))
    variables = model.init(jax.random.key(0), images[:1], False)
    params = variables["params"]
    carry = params, variables.get("batch_stats", {}), optimizer.init(params)

    @jax.jit
    def train(params, stats, opt, images, labels):
        def loss_of(params):
            logits, updated = model.apply(
                {"params": params, "batch_stats": stats},
                images,
                True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updated.get("batch_stats", {})

        grads, stats = jax.grad(loss_of, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, updates), stats, opt

    @jax.jit
    def infer(variables, images):
        return model.apply(variables, images, False)

    def train_steps(n):
        nonlocal carry
        for _ in range(n):
            carry = train(*carry, images, labels)
        jax.block_until_ready(carry)

    def infer_steps(n):
        for _ in range(n):
            logits = infer(variables, images)
        jax.block_until_ready(logits)

    serve(train_steps if job["mode"] == "train" else infer_steps, jax_memory)


main()
