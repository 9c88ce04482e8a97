"""The sums by which images and labels of CIFAR-10 are known to be whole and right."""

import hashlib

import numpy as np

from vgg_jax.errors import RunError

# Sums of the uint8 pixels (NHWC) and of the uint8 labels, both in canonical order.
SHA256: dict[str, dict[str, tuple[str, str]]] = {
    "cifar10": {
        "train": (
            "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        ),
        "test": (
            "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        ),
    },
    "cifar10_sample": {
        "train": (
            "53981c081145185e466a75a2d38b4f9e339f21369fb0a8ec72698ed5d9568ab3",
            "5d60d326d3ca3b6f16d99fef0b1575bf7c79a7760e7616ec97fa7b56cacc00ee",
        ),
        "test": (
            "cc2bd4479eda140793858a9ea7f9016e6870fefd7f69f172720267e933ec44a5",
            "bf5fd7ab55257c7eeece32a36d229c4767d2479b59c8d506b7e35494f9cbf574",
        ),
    },
}


def verify(
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    order: np.ndarray | None = None,
    name: str = "cifar10",
) -> None:
    """Checks a whole split against `SHA256`.

    Args:
        split: "train" or "test".
        images: uint8 RGB `[N, 32, 32, 3]`.
        labels: int `[N]`.
        order: int `[N]`, indices that put the examples into canonical order; None if
            they are in that order already.
        name: "cifar10" or "cifar10_sample".

    Raises:
        RunError: the pixels or the labels are not those of the data set.
    """
    columns = (("pixels", images), ("labels", labels))
    for (what, array), expected in zip(columns, SHA256[name][split], strict=True):
        digest = hashlib.sha256()
        for place in range(len(array)) if order is None else order:
            digest.update(np.uint8(array[place]).tobytes())
        if (got := digest.hexdigest()) != expected:
            raise RunError(
                f"SHA-256 of the {name} {split} {what} is {got}, not {expected}"
            )
