"""The six networks of Simonyan & Zisserman (2014), Table 1, as one Flax module."""

import re
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from vgg_jax.errors import ConfigError, choose
from vgg_jax.nn import conv
from vgg_jax.nn import normalization as norm
from vgg_jax.nn import pooling as pool
from vgg_jax.nn.initializers import INITIALIZERS

# The paper's own notation: conv<kernel size>-<channels>, "|" a 2x2 max-pool.
CONFIGURATIONS = {
    "A": """conv3-64 | conv3-128 | conv3-256 conv3-256 |
        conv3-512 conv3-512 | conv3-512 conv3-512 |""",
    "A-LRN": """conv3-64 LRN | conv3-128 | conv3-256 conv3-256 |
        conv3-512 conv3-512 | conv3-512 conv3-512 |""",
    "B": """conv3-64 conv3-64 | conv3-128 conv3-128 | conv3-256 conv3-256 |
        conv3-512 conv3-512 | conv3-512 conv3-512 |""",
    "C": """conv3-64 conv3-64 | conv3-128 conv3-128 |
        conv3-256 conv3-256 conv1-256 | conv3-512 conv3-512 conv1-512 |
        conv3-512 conv3-512 conv1-512 |""",
    "D": """conv3-64 conv3-64 | conv3-128 conv3-128 |
        conv3-256 conv3-256 conv3-256 | conv3-512 conv3-512 conv3-512 |
        conv3-512 conv3-512 conv3-512 |""",
    "E": """conv3-64 conv3-64 | conv3-128 conv3-128 |
        conv3-256 conv3-256 conv3-256 conv3-256 |
        conv3-512 conv3-512 conv3-512 conv3-512 |
        conv3-512 conv3-512 conv3-512 conv3-512 |""",
}
_LAYER = re.compile(r"conv\d*[13579]-[1-9]\d*|LRN")
POOLS = {"max": pool.max_pool, "average": pool.average_pool}
HEADS = ("paper", "compact")


def stages(variant: str) -> list[list[str]]:
    """The layers of a configuration, stage by stage: `[["conv3-64"], ...]`.

    Args:
        variant: one of `CONFIGURATIONS`, or a table of one's own in their notation:
            "conv3-64 | conv5-128 conv1-64 |" (odd kernels; it ends with a pool).

    Raises:
        ConfigError: neither.
    """
    table = variant
    if "conv" not in variant:
        table = choose(CONFIGURATIONS, variant, "model.variant")
    found = [stage.split() for stage in table.split("|")]
    for layer in sum(found, []):
        if not _LAYER.fullmatch(layer):
            raise ConfigError(
                f"model.variant={variant!r}: {layer!r} is no layer; write conv<odd "
                "kernel size>-<channels>, LRN, or | for a pool, spaces between"
            )
    if found.pop() or not all(found):
        raise ConfigError(
            f"model.variant={variant!r}: every stage has a layer and ends with a pool |"
        )
    return found


def least_size(variant: str) -> int:
    """Smallest input height and width that leaves one pixel after the last pool."""
    return 2 ** len(stages(variant))


def local_response_norm(
    x: jax.Array, *, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """Krizhevsky et al. (2012), section 3.3: `x / (k + alpha * sum(x^2))^beta`.

    The sum runs over n neighbouring channels and is not divided by n (TensorFlow's
    convention; PyTorch and Caffe divide: their alpha is n times this one).
    """
    squares = jnp.square(x.astype(jnp.float32))
    padded = jnp.pad(squares, ((0, 0), (0, 0), (0, 0), (n // 2, n // 2)))
    total = sum(padded[..., i : i + x.shape[-1]] for i in range(n))
    return (x * (k + alpha * total) ** -beta).astype(x.dtype)


class Conv(nn.Module):
    """Stride-1 convolution with bias that keeps the spatial size."""

    features: int
    kernel: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype
    implementation: str
    frozen: bool = False

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, H, W, features]
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        name = "frozen_kernel" if self.frozen else "kernel"
        w = self.param(name, self.kernel_init, shape, jnp.float32)
        w = lax.stop_gradient(w) if self.frozen else w
        b = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        x, w, b = (a.astype(self.dtype) for a in (x, w, b))
        return conv.conv2d(x, w, b, implementation=self.implementation)


class Activations(nn.Module):
    """Sows what passes, by name; a scope of its own, as layers bear the same names."""

    @nn.compact
    def __call__(self, name, x):
        self.sow("intermediates", name, x)
        return x


class VGG(nn.Module):
    """VGG. Weight layers are named as in the paper: `conv1_1` ... `fc8`.

    Call with images `[B, H, W, C]`, float, already normalised; returns float32 logits
    `[B, num_classes]`. `train=True` turns on dropout (rng `dropout`) and batch
    statistics (collection `batch_stats`). Activations are sown into the collection
    `intermediates` under `activations`, by name: `conv4_3`, `relu4_3`, `pool4`, `fc7`.

    Attributes:
        variant: configuration of the paper's Table 1, "A" ... "E" or "A-LRN", or a
            table of one's own (`stages`).
        num_classes: width of `fc8`.
        width: multiplies the channels of every convolution.
        batch_norm: batch normalisation between convolution and ReLU (not the paper's).
        norm_scale: whether batch norm learns a scale; if not, it is 1.
        whiten: the kernel of `conv1_1` is not trained (`whiten.py` sets it), and no
            batch norm follows it.
        head: "paper" flattens and applies `hidden` dense layers before `fc8`;
            "compact" averages over space and goes straight to `fc8`.
        hidden: widths of the dense layers of the "paper" head.
        dropout: rate after each hidden dense layer; the paper's is 0.5.
        pool: "max" (the paper's) or "average".
        pool_early: the last convolution of a stage is pooled before batch norm and
            ReLU, which then see a quarter of the pixels, not after them.
        kernel_init: one of `INITIALIZERS`.
        logit_scale: multiplies the logits.
        dtype: type of the computation; parameters and logits are float32.
        conv: "auto" or "lax", see `conv.conv2d`.

    Raises:
        ConfigError: unknown name, or an image that vanishes before the last pool.
    """

    variant: str = "D"
    num_classes: int = 1000
    width: float = 1.0
    batch_norm: bool = False
    norm_scale: bool = True
    whiten: bool = False
    head: str = "paper"
    hidden: Sequence[int] = (4096, 4096)
    dropout: float = 0.5
    pool: str = "max"
    pool_early: bool = False
    kernel_init: str = "he"
    logit_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32
    conv: str = "auto"

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        conv_init, dense_init = choose(
            INITIALIZERS, self.kernel_init, "model.kernel_init"
        )
        keep = Activations(name="activations")
        x = self._convolutions(x.astype(self.dtype), conv_init, keep, train)
        if choose(HEADS, self.head, "model.head") == "compact":
            hidden = ()
            x = x.mean((1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, C]
        else:
            hidden = self.hidden
            x = x.reshape(x.shape[0], -1)  # [B, H * W * C]
        dense = partial(nn.Dense, kernel_init=dense_init, dtype=self.dtype)
        for i, features in enumerate(hidden, 8 - len(hidden)):
            x = keep(f"fc{i}", dense(features, name=f"fc{i}")(x))
            x = keep(f"relu{i}", nn.relu(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = dense(self.num_classes, name="fc8")(x)
        return keep("fc8", self.logit_scale * x.astype(jnp.float32))

    def _convolutions(self, x, kernel_init, keep, train):
        """The five stages: `[B, H, W, C]` -> `[B, H // 32, W // 32, 512 * width]`."""
        self._check_size(x.shape)
        for s, stage in enumerate(stages(self.variant), 1):
            early = self.pool_early and stage[-1] != "LRN"
            for i, layer in enumerate(stage, 1):
                if layer == "LRN":
                    x = local_response_norm(x)
                    continue
                kernel, channels = layer.removeprefix("conv").split("-")
                whitening = self.whiten and (s, i) == (1, 1)
                x = Conv(
                    features=max(1, round(int(channels) * self.width)),
                    kernel=int(kernel),
                    kernel_init=kernel_init,
                    dtype=self.dtype,
                    implementation=self.conv,
                    frozen=whitening,
                    name=f"conv{s}_{i}",
                )(x)
                x = keep(f"conv{s}_{i}", x)
                if early and i == len(stage):
                    x = keep(f"pool{s}", choose(POOLS, self.pool, "model.pool")(x))
                if self.batch_norm and not whitening:
                    x = norm.BatchNorm(self.norm_scale, name=f"bn{s}_{i}")(
                        x, train=train
                    )
                x = keep(f"relu{s}_{i}", nn.relu(x))
            if not early:
                x = keep(f"pool{s}", choose(POOLS, self.pool, "model.pool")(x))
        return x

    def _check_size(self, shape):
        least = least_size(self.variant)
        if min(shape[1:3]) < least:
            raise ConfigError(
                f"images of {shape[1]}x{shape[2]} are too small: configuration "
                f"{self.variant} halves them {least.bit_length() - 1} times and needs "
                f"at least {least}x{least} (set augment.resize={least} or more)"
            )
