"""From pixels to what a network sees: range, channel order, statistics, size."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp

from vgg_jax.errors import ConfigError, choose

# Mean and standard deviation of each channel, in units of [0, 1]. One number stands for
# all channels.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

ORDERS = ("RGB", "BGR")
# What a config says in the place of a name, until that is known:
OWN = "data"  # the statistics of the data set
INIT = "init"  # what the network of init.path expects
_MEANS = (-1, 2)  # beyond these and _STDS, numbers are not in units of [0, 1]
_STDS = (1e-4, 10)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its images; it belongs to the weights.

    Attributes:
        mean: of each channel, in units of [0, 1], in the order of the images (RGB); one
            number stands for all channels.
        std: standard deviation, likewise.
        order: of the channels as the network sees them: "RGB", or "BGR" (Caffe's, and
            so Keras'). Images are always RGB.

    Raises:
        ConfigError: mean and std are not as many numbers, or in other units; or the
            order is unknown.

    >>> Preprocessing([0.5], [0.25])
    Preprocessing(mean=(0.5,), std=(0.25,), order='RGB')
    >>> Preprocessing((123.7, 116.8, 103.9), (58.4, 57.1, 57.4))
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: mean=(123.7, 116.8, 103.9) must be numbers in units of \
[0, 1], one per channel: divide grey levels by 255
    """

    mean: Sequence[float]
    std: Sequence[float]
    order: str = "RGB"

    def __post_init__(self) -> None:
        for name, (low, high) in (("mean", _MEANS), ("std", _STDS)):
            numbers = _numbers(getattr(self, name))
            if not numbers or not all(low <= x <= high for x in numbers):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} must be numbers in units of "
                    "[0, 1], one per channel: divide grey levels by 255"
                )
            object.__setattr__(self, name, numbers)
        if len(self.mean) != len(self.std):
            raise ConfigError(
                f"mean={self.mean} and std={self.std} must be as many numbers"
            )
        choose(ORDERS, self.order, "order")

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation."""
        return tuple(self.mean), tuple(self.std)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, as JSON keeps them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Returns the value whose `to_json()` went through JSON.

        Raises:
            ConfigError, LookupError, TypeError: it is none.

        >>> Preprocessing.from_json({"mean": [0], "std": [1], "order": "RGB"})
        Preprocessing(mean=(0.0,), std=(1.0,), order='RGB')
        """
        return cls(said["mean"], said["std"], said["order"])


def _numbers(values: Any) -> tuple[float, ...]:
    """Returns finite numbers, or nothing where one of them is none."""
    try:
        numbers = () if isinstance(values, str) else tuple(map(float, values))
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


_IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PREPROCESSING: dict[str, Preprocessing] = {
    "unit": Preprocessing((0.0,), (1.0,)),  # [0, 1], as the blog has it
    "symmetric": Preprocessing((0.5,), (0.5,)),  # [-1, 1]
    "cifar10": Preprocessing(  # the 50,000 training images
        (125.30691805 / 255, 122.95039414 / 255, 113.86538318 / 255),
        (62.99321928 / 255, 62.08870764 / 255, 66.70489964 / 255),
    ),
    # torchvision's and timm's; LPIPS', which states it for images in [-1, 1].
    "imagenet": _IMAGENET,
    # `keras.applications.vgg16.preprocess_input`, "caffe": the paper's mean, no scale.
    "keras": Preprocessing(
        (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3, "BGR"
    ),
}


def named(preprocessing: str | Preprocessing) -> Preprocessing:
    """Returns the value that a name stands for, or the value itself.

    Raises:
        ConfigError: the name is unknown, or it is neither.

    >>> named("unit")
    Preprocessing(mean=(0.0,), std=(1.0,), order='RGB')
    """
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    if isinstance(preprocessing, str):
        return choose(PREPROCESSING, preprocessing, "preprocessing")
    raise ConfigError(
        f"preprocessing={preprocessing!r} must be a Preprocessing, or one of: "
        f"{', '.join(PREPROCESSING)}"
    )


def name_of(preprocessing: Preprocessing) -> str:
    """Returns the name in `PREPROCESSING`, or the numbers where there is none.

    >>> name_of(PREPROCESSING["imagenet"])
    'imagenet'
    """
    for name, known in PREPROCESSING.items():
        if known == preprocessing:
            return name
    mean, std = preprocessing.statistics
    return f"mean {mean}, std {std}, {preprocessing.order}"


def normalize(images: jax.Array, preprocessing: str | Preprocessing) -> jax.Array:
    """Subtracts the mean of each channel and divides by its standard deviation.

    Args:
        images: `[B, H, W, C]`, RGB, uint8, or floats from 0 to 255.
        preprocessing: one of `PREPROCESSING`, or its name.

    Returns:
        float32 `[B, H, W, C]`, in the channel order of the preprocessing.

    Raises:
        ConfigError: the name is unknown, or its statistics are for another number of
            channels.

    >>> normalize(jnp.full((1, 1, 1, 3), 255), "symmetric").tolist()
    [[[[1.0, 1.0, 1.0]]]]
    """
    return standardize(images.astype(jnp.float32) / 255, preprocessing)


def standardize(images: jax.Array, preprocessing: str | Preprocessing) -> jax.Array:
    """Returns what `normalize` does, of float32 images in [0, 1]."""
    wanted, channels = named(preprocessing), images.shape[-1]
    mean, std = (
        jnp.asarray(row, jnp.float32)[None, None, None] for row in wanted.statistics
    )
    if mean.size not in (1, channels):
        raise ConfigError(
            f"normalize={name_of(wanted)!r} is for {mean.size} channels, the images "
            f"have {channels}: use 'unit' or 'symmetric'"
        )
    seen = (images - mean) / std
    return seen[..., ::-1] if wanted.order == "BGR" else seen


def resize(images: jax.Array, size: int) -> jax.Array:
    """Scales images to `size` by `size` pixels.

    Bilinear without antialiasing, equivalent to `tf.image.resize`. Meant to enlarge: in
    training, images that are larger than `size` or not square were scaled and cropped
    when they were decoded (`data.pictures.fit`).

    Args:
        images: `[B, H, W, C]`, uint8 or float.
        size: height and width in pixels; 0, or the size that the images have, leaves
            them unchanged, dtype included.

    Returns:
        float32 `[B, size, size, C]` in the range of `images`.

    >>> resize(jnp.zeros((2, 32, 32, 3)), 64).shape
    (2, 64, 64, 3)
    """
    batch, height, width, channels = images.shape
    if size in (0, height) and size in (0, width):
        return images
    shape = (batch, size, size, channels)
    images = images.astype(jnp.float32)
    return jax.image.resize(images, shape, "bilinear", antialias=False)
