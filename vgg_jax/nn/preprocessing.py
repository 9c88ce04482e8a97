"""From pixels to what a network sees: range, channel order, statistics, size."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError, choose

# Mean and standard deviation of each channel, in units of [0, 1]. One number stands for
# all channels.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
# What the least and the greatest value that an image may hold stand for: black, white.
ValueRange = tuple[float, float]

ORDERS = ("RGB", "BGR")
_BYTE: ValueRange = (0, 255)
_SLACK = 1e-3  # share of the range, for the rounding of interpolation: a quarter level
_OVERSHOOT = 0.2  # share of the range, up to which it looks like interpolation
_RANGES = "(0, 1), (-1, 1) or (0, 255)"


class Preprocessing(NamedTuple):
    """What a network expects of its images; it belongs to the weights.

    Attributes:
        mean: of each channel, in units of [0, 1], in the order of the images (RGB); one
            number stands for all channels.
        std: standard deviation, likewise.
        order: of the channels as the network sees them: "RGB", or "BGR" (Caffe's, and
            so Keras'). Images are always RGB.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "RGB"

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation."""
        return self.mean, self.std

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Returns the value whose `_asdict()` went through JSON.

        Raises:
            ConfigError, LookupError, TypeError, ValueError: it is none.

        >>> Preprocessing.from_json({"mean": [0], "std": [1], "order": "RGB"})
        Preprocessing(mean=(0.0,), std=(1.0,), order='RGB')
        """
        mean, std = (tuple(map(float, said[key])) for key in ("mean", "std"))
        return cls(mean, std, choose(ORDERS, said["order"], "order"))


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


def name_of(preprocessing: Preprocessing) -> str:
    """Returns the name in `PREPROCESSING`, or the numbers where there is none.

    >>> name_of(PREPROCESSING["imagenet"])
    'imagenet'
    """
    for name, known in PREPROCESSING.items():
        if known == preprocessing:
            return name
    mean, std, order = preprocessing
    return f"mean {mean}, std {std}, {order}"


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
    return _standardize(images.astype(jnp.float32) / 255, preprocessing)


def _standardize(images: jax.Array, preprocessing: str | Preprocessing) -> jax.Array:
    """Normalises float32 images in [0, 1]."""
    wanted, channels = preprocessing, images.shape[-1]
    if isinstance(wanted, str):
        wanted = choose(PREPROCESSING, wanted, "normalize")
    mean, std = (
        jnp.asarray(row, jnp.float32)[None, None, None] for row in wanted.statistics
    )
    if mean.size not in (1, channels):
        raise ConfigError(
            f"normalize={preprocessing!r} is for {mean.size} channels, the images "
            f"have {channels}: use 'unit' or 'symmetric'"
        )
    seen = (images - mean) / std
    return seen[..., ::-1] if wanted.order == "BGR" else seen


def network_input(
    images: ArrayLike,
    preprocessing: Preprocessing,
    value_range: ValueRange | None = None,
) -> jax.Array:
    """Checks images of a program and returns what a network sees of them.

    Outside of `jax.jit` values that are not in the range, NaN among them, are an error.
    Inside, where values are not known, `jax.experimental.checkify.checkify` of the
    function that is jitted reports them; without it they are not looked at.

    Args:
        images: `[B, H, W, C]`, RGB (or grey), uint8 or floating point.
        preprocessing: of the network.
        value_range: what the values 'black' and 'white' are in `images`, `(0, 1)`,
            `(-1, 1)` or `(0, 255)`. uint8 is `(0, 255)`; floats must say.

    Returns:
        float32 `[B, H, W, C]`.

    Raises:
        ConfigError: the images have another shape or type, or values outside of the
            range; or no range is given for floats.

    >>> black = jnp.zeros((1, 2, 2, 3))
    >>> network_input(black, PREPROCESSING["symmetric"], (0, 1)).min().item()
    -1.0
    >>> network_input(black - 1, PREPROCESSING["symmetric"], (0, 1))
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: images hold values from -1 to -1, outside of \
value_range=(0, 1): is it (-1, 1)?
    """
    images = jnp.asarray(images)
    _check_shape(images, len(preprocessing.mean))
    low, high = _value_range(images, value_range)
    _check_values(images, low, high)
    unit = (images.astype(jnp.float32) - low) / (high - low)
    return _standardize(unit, preprocessing)


def _check_shape(images: jax.Array, channels: int) -> None:
    shape = images.shape
    if len(shape) != 4:
        hint = ": add a batch axis, images[None]" if len(shape) == 3 else ""
        raise ConfigError(
            f"images of shape {list(shape)} are not [B, height, width, channels]{hint}"
        )
    if channels != 1 and shape[-1] != channels:
        hint = "convert the pictures to RGB"
        if shape[1] == channels:
            hint = "they have their channels first: images.transpose(0, 2, 3, 1)"
        raise ConfigError(
            f"images of shape {list(shape)} have {shape[-1]} channels where the "
            f"network expects {channels}: {hint}"
        )


def _value_range(images: jax.Array, given: ValueRange | None) -> ValueRange:
    if images.dtype == jnp.uint8:
        if given is not None and tuple(given) != _BYTE:
            raise ConfigError(
                f"value_range={given} for uint8 images, whose range is (0, 255): "
                "leave it out"
            )
        return _BYTE
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ConfigError(
            f"images of type {images.dtype} are neither uint8 nor floating point"
        )
    if given is None:
        raise ConfigError(
            f"images of type {images.dtype} must come with value_range={_RANGES}: what "
            "black and white are in them"
        )
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low = high = np.nan
    if not -np.inf < low < high < np.inf:
        raise ConfigError(
            f"value_range={given!r} must be two numbers, the smaller first: {_RANGES}"
        )
    return low, high


def _check_values(images: jax.Array, low: float, high: float) -> None:
    """Refuses values that are out of range, where they are known."""
    if images.dtype == jnp.uint8 or not images.size:
        return
    slack = _SLACK * (high - low)
    within = lambda least, most: (least >= low - slack) & (most <= high + slack)
    if isinstance(images, Tracer):
        least, most = _extremes(images)
        checkify.debug_check(
            within(least, most),
            f"images hold values outside of value_range=({low:g}, {high:g}), or NaN: "
            "from {least} to {most}",
            least=least,
            most=most,
        )
        return
    with jax.ensure_compile_time_eval():  # constants of a program are known too
        least, most = map(float, _extremes(images))
    if np.isnan(least):
        raise ConfigError("images hold NaN")
    if not within(least, most):
        raise ConfigError(
            f"images hold values from {least:g} to {most:g}, outside of "
            f"value_range=({low:g}, {high:g}): {_remedy(least, most, low, high)}"
        )


@jax.jit
def _extremes(images: jax.Array) -> Any:
    """Returns the least and the greatest value, NaN both where any value is.

    XLA's own minimum and maximum of a large array lose NaN on CPU, and all that came
    before it (jaxlib 0.12: `jnp.full(6144, 0.5).at[-1].set(jnp.nan).min()` is inf).
    """
    seen = images.astype(jnp.float32)
    unknown = jnp.isnan(seen).any()
    return tuple(jnp.where(unknown, jnp.nan, x) for x in (seen.min(), seen.max()))


def _remedy(least: float, most: float, low: float, high: float) -> str:
    over = max(low - least, most - high) / (high - low)
    for black, white in ((-1, 1), _BYTE):
        if over > _OVERSHOOT and black <= least and most <= white:
            return f"is it ({black}, {white})?"
    return "clip them, as interpolation overshoots"


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
