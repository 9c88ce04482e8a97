"""Everything that explains one answer of a network about one picture."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from vgg_jax.errors import ConfigError
from vgg_jax.inference.channels import Channels, active_channels, channels_of
from vgg_jax.inference.grad_cam import default_layer, grad_cam
from vgg_jax.inference.guided_backprop import guided_backprop
from vgg_jax.inference.integrated_gradients import Attribution, integrated_gradients
from vgg_jax.inference.inversion import Found, invert, maximise
from vgg_jax.inference.occlusion import Track, occlusion
from vgg_jax.interop.network import Network
from vgg_jax.nn.conv import quick_to_compile
from vgg_jax.nn.softmax import softmax

_COMPLETE = 0.01  # error of the integral of the gradients that is small enough
_STEPS = (64, 128, 256, 512)  # of it, until it is
_CHANNELS = 8


class Wanted(NamedTuple):
    """A channel that is looked at: our name of its layer, and its number."""

    layer: str
    number: int


class ChannelView(NamedTuple):
    """What one channel looks for, and what its layer keeps of a picture.

    Attributes:
        wanted: the channel.
        map: float32 `[h, w]`, its activation; None in the head, which has no map.
        excited: one image that excites it.
        inverted: the picture, made from its features in the layer.
    """

    wanted: Wanted
    map: np.ndarray | None
    excited: Found
    inverted: Found


class Explanation(NamedTuple):
    """What a network sees in a picture, and why it says what it says.

    Attributes:
        picture: uint8 `[H, W, 3]`.
        names: of the classes.
        probabilities: float32 `[num_classes]`.
        target: number of the class that is explained.
        layer: of `cam` and `channels`.
        cam: float32 `[h, w]`; see `grad_cam`.
        guided: float32 `[H, W, C]`; see `guided_backprop`.
        falls: float32 `[H, W]`; see `occlusion`.
        integrated: of one image; see `integrated_gradients`.
        channels: of one image; see `active_channels`.
        filters: float32 `[k, k, C, K]`, kernel of `conv1_1`, RGB.
        channel: the channel that was asked for.
        source: where the weights are from.
    """

    picture: np.ndarray
    names: tuple[str, ...]
    probabilities: np.ndarray
    target: int
    layer: str
    cam: np.ndarray
    guided: np.ndarray
    falls: np.ndarray
    integrated: Attribution
    channels: Channels
    filters: np.ndarray
    channel: ChannelView | None
    source: str


def explain(
    network: Network,
    picture: np.ndarray,
    *,
    target: int | None = None,
    wanted: Wanted | None = None,
    track: Callable[[str], Track] = lambda name: iter,
) -> Explanation:
    """Returns all explanations of an answer, as values of NumPy.

    Args:
        network: with a head. It computes in float32.
        picture: uint8 `[H, W, 3]`, of a size that the network takes.
        target: number of the class to explain; None: the most probable.
        wanted: a channel to look at; None: none.
        track: returns, by the name of what is computed, what passes the steps of its
            loop on: a progress bar.

    Raises:
        ConfigError: the class, the layer or the channel does not exist, or the picture
            does not suit the network.
    """
    conv = quick_to_compile("float32")
    network = network.configured(dtype="float32", conv=conv)
    if network.channels != 3:
        raise ConfigError(
            f"{network.source} is for images of {network.channels} channels: a sheet "
            "shows those of three"
        )
    images = picture[None]
    sure = np.asarray(softmax(network(images))[0])
    target = int(sure.argmax()) if target is None else target
    layer = default_layer(network, picture.shape[:2])  # pyright: ignore
    one = lambda batch: jax.tree.map(lambda x: np.asarray(x)[0], batch)
    return Explanation(
        picture=picture,
        names=network.class_names or tuple(f"class {i}" for i in range(len(sure))),
        probabilities=sure,
        target=target,
        layer=layer,
        cam=one(grad_cam(network, images, target, layer=layer)),
        guided=one(guided_backprop(network, images, target)),
        falls=one(occlusion(network, images, target, track=track("occlusion"))),
        integrated=one(_integrated(network, images, target)),
        channels=one(_channels(network, images, layer)),
        filters=_filters(network),
        channel=_view(network, images, wanted, track) if wanted else None,
        source=network.source,
    )


def _channels(network: Network, images: np.ndarray, layer: str) -> Channels:
    count = min(_CHANNELS, channels_of(network, layer))
    return active_channels(network, images, layer, count=count)


def _filters(network: Network) -> np.ndarray:
    """Returns the kernel of the first layer, its colours in the order of images."""
    kernel = np.asarray(network.variables["params"]["conv1_1"]["kernel"])
    return kernel[:, :, ::-1] if network.preprocessing.order == "BGR" else kernel


def _integrated(network: Network, images: np.ndarray, target: int) -> Attribution:
    """Returns the integral by as few steps as make it complete."""
    *fewer, most = _STEPS
    for steps in fewer:
        found = integrated_gradients(network, images, target, steps=steps)
        if found.error[0] < _COMPLETE:
            return found
    return integrated_gradients(network, images, target, steps=most)


def _view(
    network: Network,
    images: np.ndarray,
    wanted: Wanted,
    track: Callable[[str], Track],
) -> ChannelView:
    layer, number = wanted
    excited = maximise(
        network, layer, number, size=images.shape[1], track=track(f"{layer}:{number}")
    )
    inverted = invert(network, images, layer, track=track(f"inverting {layer}"))
    seen = network.activations(images, (layer,))[layer]
    shown = np.asarray(seen[0, ..., number]) if seen.ndim == 4 else None
    one = lambda found: Found(*(np.asarray(x)[0] for x in found))
    return ChannelView(wanted, shown, one(excited), one(inverted))
