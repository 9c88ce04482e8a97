"""A network as it leaves JAX: bytes of pictures in, probabilities out; and its card."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vgg_jax.errors import ConfigError
from vgg_jax.interop import metadata
from vgg_jax.interop.network import HEAD, Network

INPUT, OUTPUTS = "images", ("logits", "probabilities")  # names in an exported file
LAYOUTS = ("nhwc", "nchw")
_OF_FILES = ("convention", "without", "tensors_sha256")  # of metadata: not of a network


class Classifier(NamedTuple):
    """A network with its preprocessing, for pictures of one size.

    It computes in float32 with XLA's own convolutions, which every platform has.

    Attributes:
        network: with its weights.
        size: height and width in pixels of its images.
        layout: "nhwc" or "nchw", of its images.
    """

    network: Network
    size: int
    layout: str = "nhwc"

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return self.network.channels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, in the layout."""
        if self.layout == "nchw":
            return self.channels, self.size, self.size
        return self.size, self.size, self.channels

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns logits and probabilities, float32 `[B, num_classes]`.

        Args:
            images: uint8 `[B, *image_shape]`, RGB.
        """
        network = self.network
        if self.layout == "nchw":
            images = images.transpose(0, 2, 3, 1)
        seen = network.seen(images, HEAD)
        logits = network.model.apply(network.variables, seen)
        assert isinstance(logits, jax.Array)
        return logits, jax.nn.softmax(logits)

    def card(self) -> dict[str, Any]:
        """Returns what belongs to the network besides its weights, ready for JSON.

        `input` says what to give it; the preprocessing is done inside. `class_names` is
        empty where they are not known.
        """
        said = json.loads(metadata.dumps(self.network, "vgg_jax", (), ""))
        for key in _OF_FILES:
            del said[key]
        shape = ["B", *self.image_shape]
        image = {"name": INPUT, "dtype": "uint8", "shape": shape, "order": "RGB"}
        return said | {"size": self.size, "input": image, "outputs": OUTPUTS}


def classifier(network: Network, *, size: int = 0, layout: str = "nhwc") -> Classifier:
    """Returns a network ready to be exported.

    Args:
        network: with a head.
        size: height and width in pixels of the images; 0: those it was trained on.
        layout: one of `LAYOUTS`.

    Raises:
        ConfigError: the size is not known, or not the network's; or there is no head.

    >>> from vgg_jax.interop.network import random
    >>> network = random(metadata.model({"variant": "conv3-8 |", "head": "compact"}),
    ...                  "unit", size=8)
    >>> classifier(network, layout="nchw").image_shape
    (3, 8, 8)
    """
    network.check_weights(HEAD)
    if size < 0:
        raise ConfigError(f"size={size} must be at least 1, or 0 for the network's own")
    if not (side := size or network.size):
        raise ConfigError(
            f"{network.source} does not say how large its images are: "
            "size=224 (--size=224) does"
        )
    network = network.configured(conv="lax", dtype=jnp.float32)
    made = Classifier(network, side, layout)
    network.check_map((1, side, side, made.channels), HEAD)
    return made


def metadata_texts(card: Mapping[str, Any]) -> dict[str, str]:
    """Returns a card as texts, for a format that keeps no others: JSON, but for texts.

    >>> metadata_texts({"class_names": ["cat"], "source": "zoo"})
    {'class_names': '["cat"]', 'source': 'zoo'}
    """
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in card.items()
    }
