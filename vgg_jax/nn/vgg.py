"""The six networks of Simonyan & Zisserman (2014) as one Flax module."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from vgg_jax import machine
from vgg_jax.errors import ConfigError
from vgg_jax.fields import Rule, check, field, in_range, one_of, positive, share, widths
from vgg_jax.nn import architecture, conv, matmul
from vgg_jax.nn.architecture import HEADS, LayerSpec
from vgg_jax.nn.conv import IMPLEMENTATIONS, conv2d
from vgg_jax.nn.initializers import INITIALIZERS
from vgg_jax.nn.lrn import local_response_norm
from vgg_jax.nn.normalization import BatchNorm
from vgg_jax.nn.patterns import matches
from vgg_jax.nn.pooling import POOLS, pool2d
from vgg_jax.nn.relu import relu

REMAT = ("none", "stage")
PREPARED = "prepared"  # the collection of what is computed from kernels beforehand
# Kinds of layers whose outputs are sown: everything with a name in the paper's terms.
_SOWN = ("conv", "batch_norm", "lrn", "relu", "pool", "adaptive_average", "dense")


class Conv(nn.Module):
    """Stride-1 convolution with bias that keeps the spatial size.

    Attributes:
        features: output channels.
        kernel: side of the kernel in pixels, odd.
        kernel_init: initialiser of the kernel, float32 `[k, k, C, features]`.
        dtype: type of the computation.
        implementation: see `conv2d`.
    """

    features: int
    kernel: int
    kernel_init: nn.initializers.Initializer
    dtype: DTypeLike
    implementation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # [B, H, W, C] -> [B, H, W, K]
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        w = self.param("kernel", self.kernel_init, shape, jnp.float32)
        b = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        x, w, b = (a.astype(self.dtype) for a in (x, w, b))
        ready = self.get_variable(PREPARED, "kernels", ())
        return conv2d(x, w, b, implementation=self.implementation, prepared=ready)


class Dropout(nn.Module):
    """Dropout with the random numbers of `flax.linen.Dropout`, on any mesh.

    Flax's own selects by a mask that is whole on each device, which a mesh of explicit
    axes refuses where the batch is spread over them.

    Attributes:
        rate: share of the values set to zero, in [0, 1); the others are scaled up.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.rate == 0 or not train:
            return x
        key, keep = self.make_rng("dropout"), 1 - self.rate
        return jnp.where(jax.random.bernoulli(key, keep, x.shape), x / keep, 0)


class Activations(nn.Module):
    """Sows what passes, by name; a scope of its own, as layers bear the same names.

    The network goes on with what this returns, so that `inference.hooks` can change it.
    """

    @nn.compact
    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        self.sow("intermediates", name, x)
        return x


def _is_float(dtype: DTypeLike) -> bool:
    return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)


class VGG(nn.Module):
    """VGG. Weight layers are named as in the paper: `conv1_1` ... `fc8`.

    Call with images `[B, H, W, C]`, float, already normalised; returns float32 logits
    `[B, num_classes]`. `train=True` turns on dropout (rng `dropout`) and batch
    statistics (collection `batch_stats`). Activations are sown into the collection
    `intermediates` under `activations`, by name: `conv4_3`, `relu4_3`, `pool4`, `fc7`.
    `last="relu4_3"` computes nothing after that layer, needs no parameters of later
    ones, and returns its activation.

    Attributes:
        variant: configuration of the paper's Table 1, "A" ... "E" or "A-LRN", or a
            table of one's own (`architecture.stages`).
        num_classes: width of `fc8`.
        width: multiplies the channels of every convolution.
        batch_norm: batch normalisation between convolution and ReLU (not the paper's).
        norm_scale: whether batch norm learns a scale; if not, it is 1.
        whiten: `conv1_1` is a whitening layer (`whitening.set_first` computes its
            kernel, which training leaves alone), and no batch norm follows it.
        head: "paper" flattens and applies `hidden` dense layers before `fc8`;
            "adaptive" does so after averaging the map to 7x7 pixels, whatever its size
            (torchvision's; the same as "paper" at 224 pixels); "compact" averages over
            space and goes straight to `fc8`.
        hidden: widths of the dense layers of the "paper" and the "adaptive" head.
        dropout: rate after each hidden dense layer, in [0, 1); the paper's is 0.5.
        pool: "max" (the paper's) or "average".
        pool_early: the last convolution of a stage is pooled before batch norm and
            ReLU, which then see a quarter of the pixels, not after them.
        kernel_init: one of `INITIALIZERS`.
        logit_scale: multiplies the logits.
        dtype: type of the computation; parameters and logits are float32.
        conv: "auto" is the fastest algorithm on each platform, "lax" XLA's own
            convolution, pooling and product everywhere; see `conv.conv2d`.
        remat: what `jax.grad` computes again instead of keeping it, when `train=True`:
            "none", or "stage": of each stage of convolutions it keeps the input only,
            and sows none of their activations.
        frozen: patterns for the layers or parameters that training leaves alone
            (`patterns.matches`). A batch norm of which no parameter trains keeps its
            running averages too, and normalises by them when `train=True`.

    Raises:
        ConfigError: (a `ValueError`) an attribute is unknown or out of its range, or
            an image vanishes in a pool, or `last` is no layer.

    >>> import jax
    >>> model = VGG("A", num_classes=10, width=0.125, head="compact")
    >>> images = jax.numpy.zeros((2, 32, 32, 3))
    >>> variables = jax.jit(model.init)(jax.random.key(0), images)
    >>> jax.jit(model.apply)(variables, images).shape
    (2, 10)
    >>> variables["params"]["conv5_2"]["kernel"].shape
    (3, 3, 64, 64)
    """

    variant: str = "D"
    num_classes: int = field(1000, in_range(1))
    width: float = field(1.0, positive())
    batch_norm: bool = False
    norm_scale: bool = True
    whiten: bool = False
    head: str = field("paper", one_of(HEADS))
    hidden: Sequence[int] = field((4096, 4096), widths())
    dropout: float = field(0.5, share())
    pool: str = field("max", one_of(POOLS))
    pool_early: bool = False
    kernel_init: str = field("he", one_of(INITIALIZERS))
    logit_scale: float = field(1.0, positive())
    dtype: DTypeLike = field(jnp.float32, Rule(_is_float, "a floating-point type"))
    conv: str = field("auto", one_of(IMPLEMENTATIONS))
    remat: str = field("none", one_of(REMAT))
    frozen: Sequence[str] = ()

    def __post_init__(self) -> None:
        check(self)
        architecture.check_width(self.variant, self.width)
        for name in ("hidden", "frozen"):  # a static argument of jit is hashable
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()

    def layers(
        self, size: tuple[int, int], inputs: int = 3, last: str = ""
    ) -> tuple[LayerSpec, ...]:
        """Returns the layers of this network on images of a size.

        Args:
            size: height and width in pixels.
            inputs: channels of the images.
            last: the layer to end with; "": `fc8`.

        Raises:
            ConfigError: the images are too small for `last`, or there is no such layer.

        >>> [spec.size for spec in VGG().layers((224, 224)) if spec.kind == "pool"]
        [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]
        """
        return architecture.layers(
            self.variant,
            size=size,
            inputs=inputs,
            width=self.width,
            batch_norm=self.batch_norm,
            whiten=self.whiten,
            head=self.head,
            hidden=self.hidden,
            dropout=self.dropout,
            pool_early=self.pool_early,
            num_classes=self.num_classes,
            last=last,
        )

    def is_by_kernels(self) -> bool:
        """Returns whether kernels of our own do all of its large layers on a CPU.

        They do where they are the fastest (`machine.prefers_kernels`), if no
        convolution is larger than 3x3; and if no layer but a small `fc8` is dense, or
        the CPU has AVX512_BF16, by which the kernel of `matmul.py` multiplies.

        >>> VGG("D", head="compact").is_by_kernels()
        True
        >>> VGG("conv5-64 |", head="compact").is_by_kernels()
        False
        """
        least = architecture.least_size(self.variant)
        specs = self.layers((least, least))
        small = all(spec.kernel <= 3 for spec in specs if spec.kind == "conv")
        few_dense = self.head == "compact" or machine.multiplies_pairs()
        return small and few_dense and self.conv == "auto"

    def is_frozen_norm(self, name: str) -> bool:
        """Returns whether no parameter of a batch norm trains.

        >>> VGG("A", frozen=("bn[12]_*",)).is_frozen_norm("bn2_1")
        True
        """
        params = ["bias", *["scale"] * self.norm_scale]
        frozen = lambda param: any(matches(f"{name}/{param}", p) for p in self.frozen)
        return all(map(frozen, params))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, last: str = ""
    ) -> jax.Array:
        sow = Activations(name="activations")
        x = x.astype(self.dtype)
        _, height, width, channels = x.shape
        layers = self.layers((height, width), channels, last)
        forgets = train and self.remat == "stage" and not self.is_initializing()
        for _, specs in groupby(layers, key=lambda spec: spec.stage):
            if forgets and (specs := tuple(specs))[0].kind == "conv":
                x = nn.remat(_stage, static_argnums=1)(self, specs, x)
            else:
                x = _apply(self, specs, x, train, sow)
        return x


def cast(model: VGG, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables with the kernels and biases in the type of the computation.

    The network casts them at each call otherwise, which takes longer than to compute
    one small image. Results differ by rounding: XLA may leave out a cast that it sees.
    Batch norm's parameters and statistics stay float32, which it computes in.

    Args:
        model: the network.
        variables: of the network, float32.

    >>> import jax
    >>> model = VGG("conv3-8 |", 10, head="compact", dtype="bfloat16", batch_norm=True)
    >>> images = jax.numpy.zeros((1, 8, 8, 3))
    >>> variables = jax.jit(model.init)(jax.random.key(0), images)
    >>> params = cast(model, variables)["params"]
    >>> [str(params[layer]["bias"].dtype) for layer in ("conv1_1", "bn1_1", "fc8")]
    ['bfloat16', 'float32', 'bfloat16']
    """
    params = {
        name: jax.tree.map(lambda x: x.astype(model.dtype), leaves)
        if "kernel" in leaves
        else leaves
        for name, leaves in variables["params"].items()
    }
    return {**variables, "params": params}


def prepared(
    model: VGG, variables: Mapping[str, Any], shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Returns variables for many calls with images of one shape; not for training.

    They are `cast`; and a collection of their own, `PREPARED`, has what convolutions on
    a CPU compute of their kernels first: four times as many numbers and more, which may
    be float32 where the network computes in bfloat16; for few pixels as many. Images of
    another shape are right too, and take their time.

    Args:
        model: the network.
        variables: of the network, float32.
        shape: number, height and width of the images of a call.

    Raises:
        ConfigError: `shape` is not three positive whole numbers, or the images are too
            small for the network.

    >>> import jax
    >>> model = VGG("conv3-64 conv3-96 |", 10, head="compact")
    >>> images = jax.numpy.zeros((1, 16, 16, 3))
    >>> variables = jax.jit(model.init)(jax.random.key(0), images)
    >>> ready = prepared(model, variables, (1, 16, 16))
    >>> "conv1_2" in ready[PREPARED]
    True
    """
    whole = isinstance(shape, Sequence) and all(isinstance(n, Integral) for n in shape)
    if not (whole and len(shape) == 3 and min(shape) > 0):
        raise ConfigError(
            f"shape={shape!r} must be number, height and width of the images of a "
            "call: (1, 224, 224), say"
        )
    ready, (count, height, width) = cast(model, variables), shape
    params, found = ready["params"], {}
    inputs = params["conv1_1"]["kernel"].shape[2]
    layers = model.layers((height, width), inputs)
    if jax.default_backend() != "cpu" or model.conv != "auto":
        layers = ()
    for spec in layers:
        if spec.kind == "conv" and spec.name in params:
            sees = (count, *spec.size, spec.inputs)
            if kernels := conv.prepared(sees, params[spec.name]["kernel"]):
                found[spec.name] = {"kernels": kernels}
    return {**ready, PREPARED: found}


def _stage(model: VGG, specs: Iterable[LayerSpec], x: jax.Array) -> jax.Array:
    """Applies a stage in training, of which the backward pass keeps the input only."""
    return _apply(model, specs, x, True, lambda name, x: x)


def _apply(
    model: VGG,
    specs: Iterable[LayerSpec],
    x: jax.Array,
    train: bool,
    sow: Callable[[str, jax.Array], jax.Array],
) -> jax.Array:
    for spec in specs:
        x = _APPLY[spec.kind](model, spec, x, train)
        if spec.name == architecture.HEAD:
            x = model.logit_scale * x.astype(jnp.float32)
        if spec.kind in _SOWN:
            x = sow(spec.name, x)
    return x


# One function per kind of layer, all called alike: [B, H, W, C], or [B, C] in the head,
# to the same.


def _conv(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    del train
    return Conv(
        features=spec.channels,
        kernel=spec.kernel,
        kernel_init=INITIALIZERS[model.kernel_init][0],
        dtype=model.dtype,
        implementation=model.conv,
        name=spec.name,
    )(x)


def _batch_norm(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    moves = train and not model.is_frozen_norm(spec.name)
    norm = BatchNorm(model.norm_scale, implementation=model.conv, name=spec.name)
    return norm(x, train=moves)


def _lrn(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    del model, spec, train
    return local_response_norm(x)


def _relu(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    del spec, train
    return relu(x, implementation=model.conv)


def _pool(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    del spec, train
    return pool2d(x, kind=model.pool, implementation=model.conv)


def _adaptive_average(
    model: VGG, spec: LayerSpec, x: jax.Array, train: bool
) -> jax.Array:
    """Averages over windows: `torch.nn.AdaptiveAvgPool2d(7)`."""
    del model, spec, train
    for axis in (1, 2):
        parts = architecture.windows(x.shape[axis])
        if len(parts) == x.shape[axis]:  # one pixel each
            continue
        shown = [lax.slice_in_dim(x, *part, axis=axis) for part in parts]
        means = [part.mean(axis, jnp.float32, keepdims=True) for part in shown]
        x = jnp.concatenate(means, axis).astype(x.dtype)
    return x


def _flatten(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    del model, spec, train
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _average(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    del spec, train
    return x.mean((1, 2), dtype=jnp.float32).astype(model.dtype)


def _dense(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    del train
    return nn.Dense(
        spec.channels,
        kernel_init=INITIALIZERS[model.kernel_init][1],
        dtype=model.dtype,
        dot_general=matmul.dot_general if model.conv == "auto" else None,
        name=spec.name,
    )(x)


def _dropout(model: VGG, spec: LayerSpec, x: jax.Array, train: bool) -> jax.Array:
    # Named by Flax (`Dropout_0`): the name enters the random numbers.
    del spec
    return Dropout(model.dropout)(x, train=train)


_APPLY: dict[str, Callable[[VGG, LayerSpec, jax.Array, bool], jax.Array]] = {
    "conv": _conv,
    "batch_norm": _batch_norm,
    "lrn": _lrn,
    "relu": _relu,
    "pool": _pool,
    "adaptive_average": _adaptive_average,
    "flatten": _flatten,
    "average": _average,
    "dense": _dense,
    "dropout": _dropout,
}
