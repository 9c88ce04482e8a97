"""Whether networks can be evaluated by a protocol, alone and together."""

from collections.abc import Callable, Mapping, Sequence

from vgg_jax.errors import ConfigError
from vgg_jax.evaluation.ways import WAYS
from vgg_jax.interop.network import HEAD, Network
from vgg_jax.nn import dense


def check(
    networks: Sequence[Network], scales: Sequence[int], ways: Sequence[str]
) -> tuple[int, tuple[int, ...]]:
    """Returns the size of training, and the scales, if networks can be evaluated so.

    Args:
        networks: one or several, to be fused.
        scales: pixels of the smaller side; empty: the size of training.
        ways: of `ways.WAYS`.

    Raises:
        ConfigError: there is no network; one has no head or says no size; a scale is
            too small for one; they differ in what they are for.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 |", 10, hidden=(16,)), "unit", size=8)
    >>> check([network], (), ("dense",))
    (8, (8,))
    """
    if not networks:
        raise ConfigError("there are no networks to evaluate: give one at least")
    for network in networks:
        network.check_weights(HEAD)
    _check_alike(networks)
    size = _size_of(networks[0])
    scales = tuple(scales) or (size,)
    for network in networks:
        _check_scales(network, scales, ways, size)
    return size, scales


def _check_scales(
    network: Network, scales: tuple[int, ...], ways: Sequence[str], size: int
) -> None:
    """Checks that each way can look at the smallest scale."""
    for way in ways:
        if WAYS[way].whole:
            least = dense.trained_size(network.model, network.variables)
        else:
            network.check_map((1, size, size, network.channels), HEAD)
            least = size
        if min(scales) < least:
            raise ConfigError(
                f"scales={scales}: {min(scales)} pixels are fewer than the {least} "
                f"that {network.source} needs for {way!r}: give that or more"
            )


def _check_alike(networks: Sequence[Network]) -> None:
    facts: Mapping[str, Callable[[Network], object]] = {
        "sizes of training": _size_of,
        "channels": lambda network: network.channels,
        "numbers of classes": lambda network: network.model.num_classes,
    }
    first = networks[0]
    for network in networks[1:]:
        for fact, of in facts.items():
            if of(network) != of(first):
                _refuse(first, network, fact, of(first), of(network))
    named = [network for network in networks if network.class_names]
    for network in named[1:]:
        pairs = zip(named[0].class_names, network.class_names, strict=True)
        for number, (one, other) in enumerate(pairs):
            if one != other:
                _refuse(named[0], network, f"names of class {number}", one, other)


def _refuse(
    first: Network, other: Network, fact: str, known: object, found: object
) -> None:
    raise ConfigError(
        f"{first.source} and {other.source} cannot be fused, for their {fact} differ: "
        f"{known} and {found}"
    )


def _size_of(network: Network) -> int:
    if network.size:
        return network.size
    if network.model.head == "compact":
        raise ConfigError(
            f"{network.source} does not say the size of its images: set it, "
            "network.replace(size=N)"
        )
    return dense.trained_size(network.model, network.variables)
