"""Images that a program hands over, checked: shape, type, declared range, values."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.experimental import checkify
from jax.typing import ArrayLike

from vgg_jax.errors import ConfigError
from vgg_jax.nn.preprocessing import Preprocessing, standardize

# What the least and the greatest value that an image may hold stand for: black, white.
ValueRange = tuple[float, float]

_BYTE: ValueRange = (0, 255)
_SLACK = 1e-3  # share of the range, for the rounding of interpolation: a quarter level
_OVERSHOOT = 0.2  # share of the range, up to which it looks like interpolation
_RANGES = "(0, 1), (-1, 1) or (0, 255)"


def network_input(
    images: ArrayLike,
    preprocessing: Preprocessing,
    value_range: ValueRange | None = None,
    channels: int = 0,
) -> jax.Array:
    """Checks images of a program and returns what a network sees of them.

    Values that are not in the range, NaN among them, are an error, under `jax.grad`,
    `jax.jvp` and `jax.vjp` too. Inside of `jax.jit` and `jax.vmap`, where values are
    not known, `jax.experimental.checkify.checkify` of the transformed function reports
    them; without it they are not looked at.

    Args:
        images: `[B, H, W, C]`, RGB (or grey), uint8 or floating point.
        preprocessing: of the network.
        value_range: what the values 'black' and 'white' are in `images`, `(0, 1)`,
            `(-1, 1)` or `(0, 255)`. uint8 is `(0, 255)`; floats must say.
        channels: that the network has weights for; 0: as many as the preprocessing,
            where it differs by channel.

    Returns:
        float32 `[B, H, W, C]`.

    Raises:
        ConfigError: the images have another shape or type, or values outside of the
            range; or no range is given for floats.

    >>> from vgg_jax.nn.preprocessing import PREPROCESSING
    >>> black = jnp.zeros((1, 2, 2, 3))
    >>> network_input(black, PREPROCESSING["symmetric"], (0, 1)).min().item()
    -1.0
    >>> network_input(black - 1, PREPROCESSING["symmetric"], (0, 1))
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: images hold values from -1 to -1, outside of \
value_range=(0, 1): is it (-1, 1)?
    """
    images = as_array(images)
    of_each = len(preprocessing.mean)
    _check_shape(images, channels or (of_each if of_each > 1 else 0))
    low, high = _value_range(images, value_range)
    _check_values(images, low, high)
    unit = (images.astype(jnp.float32) - low) / (high - low)
    return standardize(unit, preprocessing)


def as_array(images: ArrayLike) -> jax.Array:
    """Returns images as one array.

    Raises:
        ConfigError: they are none: a path, or images of several sizes.
    """
    try:
        return jnp.asarray(images)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"images must be one array [B, height, width, channels], and a "
            f"{type(images).__name__} is none, or holds images of several sizes"
        ) from error


def _check_shape(images: jax.Array, channels: int) -> None:
    shape = images.shape
    if len(shape) != 4:
        hint = ": add a batch axis, images[None]" if len(shape) == 3 else ""
        raise ConfigError(
            f"images of shape {list(shape)} are not [B, height, width, channels]{hint}"
        )
    if channels and shape[-1] != channels:
        hint = f"convert the pictures to {'grey' if channels == 1 else 'RGB'}"
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
    low = high = np.nan
    with contextlib.suppress(TypeError, ValueError):
        if not isinstance(given, str):
            low, high = map(float, given)
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
        images = lax.stop_gradient(images)  # under `jax.grad`, values that are known
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
