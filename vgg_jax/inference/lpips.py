"""LPIPS v0.1 for VGG: how different two images look, learned from people's judgements.

Zhang, Isola, Efros, Shechtman & Wang (2018), "The unreasonable effectiveness of deep
features as a perceptual metric"; equal to `lpips.LPIPS(net="vgg")` of their package,
0.1.4 (`benchmarks/parity_lpips.py`).
"""

import functools
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.inference.features import LAST_OF_STAGES, check_loaded, features
from vgg_jax.interop import weights_file
from vgg_jax.interop.network import Network, check_network
from vgg_jax.nn.images import ValueRange, as_array
from vgg_jax.nn.preprocessing import PREPROCESSING, name_of

_PUBLISHED = "lpips_vgg_v0.1.safetensors"  # the weights and their licence, BSD-2
_CHANNELS = (64, 128, 256, 512, 512)  # of VGG-16's stages
_EPSILON = 1e-10  # added to the length of a pixel's activations


class Heads(NamedTuple):
    """The weight of each channel of the last activation of each stage.

    Attributes:
        relu1_2, relu2_2, relu3_3, relu4_3, relu5_3: float32 `[C]`, not negative.
    """

    relu1_2: np.ndarray
    relu2_2: np.ndarray
    relu3_3: np.ndarray
    relu4_3: np.ndarray
    relu5_3: np.ndarray


def load_heads(path: str | Path = "") -> Heads:
    """Returns the linear heads of LPIPS.

    Args:
        path: `.safetensors`, or `.pth` as the `lpips` package has it (`weights/v0.1/
            vgg.pth`), which PyTorch reads; "": the published ones, version 0.1, which
            come with this package.

    Raises:
        RunError: the file cannot be read, or holds other heads than VGG's.

    >>> [weights.shape for weights in load_heads()]
    [(64,), (128,), (256,), (512,), (512,)]
    """
    if path:
        return _read(Path(path))
    return _published()


@functools.cache
def _published() -> Heads:
    with resources.as_file(resources.files(__package__) / _PUBLISHED) as path:
        return _read(path)


def _read(path: Path) -> Heads:
    tensors = weights_file.read(path).tensors
    wanted = {
        f"lin{i}.model.1.weight": (1, channels, 1, 1)
        for i, channels in enumerate(_CHANNELS)
    }
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = [
        f"{name} {_shape(found, name)}, not {_shape(wanted, name)}"
        for name in dict.fromkeys([*wanted, *found])
        if found.get(name) != wanted.get(name)
    ]
    if wrong:
        raise RunError(f"{path} holds no LPIPS heads for VGG: {'; '.join(wrong[:5])}")
    negative = [name for name, tensor in tensors.items() if tensor.min() < 0]
    if negative:
        raise RunError(
            f"{path}: {', '.join(negative)} holds negative weights: no distance does"
        )
    return Heads(*(tensors[name].reshape(-1) for name in wanted))


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "none"


def lpips(
    network: Network,
    images: ArrayLike,
    others: ArrayLike,
    *,
    value_range: ValueRange | None = None,
    heads: Heads | None = None,
    random_weights: bool = False,
) -> jax.Array:
    """Returns how different images look, from 0, which is not at all.

    A pure function of images and weights; under `jax.grad` finite everywhere, also
    where two images agree.

    Args:
        network: ImageNet's VGG-16 of torchvision, as `load` returns it; the published
            heads are for no other.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        others: likewise, of the same size.
        value_range: of floating-point images, both: `(0, 1)`, `(-1, 1)`, `(0, 255)`.
        heads: as `load_heads` returns them; None: the published ones.
        random_weights: whether a network that was not loaded may be used.

    Returns:
        float32 `[B]`.

    Raises:
        ConfigError: the network is not the one that the heads are for, or has random
            weights; or the images are not what they were said to be.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 |", head="compact"), "imagenet")
    >>> x = jnp.zeros((1, 8, 8, 3), "uint8")
    >>> lpips(network, x, x)
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: LPIPS' heads are for torchvision's VGG-16, and random \
is another network: variant='conv3-8 |', not 'D'
    """
    _check_trunk(network)
    check_loaded(network, LAST_OF_STAGES, allowed=random_weights)
    weights = load_heads() if heads is None else heads
    if not isinstance(weights, Heads):
        raise ConfigError(
            f"heads={str(heads)[:60]!r} must be as load_heads(path) returns them"
        )
    images, others = as_array(images), as_array(others)
    shapes = [list(x.shape) for x in (images, others)]
    if shapes[0] != shapes[1]:
        raise ConfigError(f"images {shapes[0]} and {shapes[1]} must be of one shape")
    found, wanted = (
        features(network, x, LAST_OF_STAGES, value_range=value_range)
        for x in (images, others)
    )
    terms = [
        _distance(found[layer], wanted[layer], jnp.asarray(weight))
        for layer, weight in zip(LAST_OF_STAGES, weights, strict=True)
    ]
    return functools.reduce(jnp.add, terms)


def _check_trunk(network: Network) -> None:
    """Checks that a network is the one that the heads were trained on."""
    check_network(network)
    model = network.model
    found = {
        "variant": (model.variant, "D"),
        "batch_norm": (model.batch_norm, False),
        "width": (float(model.width), 1.0),
        "pool": (model.pool, "max"),
        "preprocessing": (
            name_of(network.preprocessing),
            name_of(PREPROCESSING["imagenet"]),
        ),
    }
    wrong = [
        f"{k}={have!r}, not {want!r}"
        for k, (have, want) in found.items()
        if have != want
    ]
    if wrong:
        raise ConfigError(
            "LPIPS' heads are for torchvision's VGG-16, and "
            f"{network.source or 'this'} is another network: {'; '.join(wrong)}"
        )


def _distance(x: jax.Array, y: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the weighted squared distance of pixels' directions, float32 `[B]`."""
    difference = _directions(x) - _directions(y)
    per_channel = jnp.square(difference).mean((1, 2))
    return jnp.matmul(per_channel, weight, precision="highest")


def _directions(x: jax.Array) -> jax.Array:
    """Divides the activations of each pixel by their length; zeros stay zeros.

    The root of zero has no derivative, so there the length is a constant.
    """
    x = x.astype(jnp.float32)
    # As a product: XLA:CPU does not vectorise sums over the last axis.
    ones = jnp.ones(x.shape[-1:], x.dtype)
    square = jnp.matmul(jnp.square(x), ones, precision="highest")
    positive = square > 0
    length = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)
    return x / (length + _EPSILON)[..., None]
