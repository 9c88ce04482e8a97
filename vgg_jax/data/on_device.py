"""Splits whose images are in the memory of an accelerator."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from vgg_jax.data.in_memory import Split
from vgg_jax.mesh import assembled, put, spread, whole

_SHARE = 0.05  # of an accelerator's memory that the images of a run may take


class OnDevice(NamedTuple):
    """A split on an accelerator. It gives the same batches as `in_memory.Split`.

    Only the numbers of the images cross over to the accelerator then, which takes the
    images by itself.

    Attributes:
        images: uint8 `[N, H, W, C]`, whole on each device.
        labels: int32 `[N]`, on the host.
        mesh: the devices, over which batches are spread.

    >>> from vgg_jax.mesh import over
    >>> split = Split(np.zeros((3, 8, 8, 1), np.uint8), np.arange(3, dtype=np.int32))
    >>> there = OnDevice(jax.device_put(split.images), split.labels, over(1))
    >>> images, labels = next(there.batches([np.array([2, 0])]))
    >>> images.shape, labels.tolist()
    ((2, 8, 8, 1), [2, 0])
    """

    images: jax.Array
    labels: np.ndarray
    mesh: Mesh

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def batches(
        self, indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[jax.Array, np.ndarray]]:
        """Yields images, uint8 `[B, H, W, C]`, and labels, int32 `[B]`, by number."""
        take = _taking(self.mesh)
        for index in indices:
            count = len(index) * self.mesh.size // len(self.mesh.local_devices)
            numbers = assembled(index, self.mesh, count)
            yield take(self.images, numbers), self.labels[index]


@functools.cache
def _taking(mesh: Mesh) -> Callable[[jax.Array, np.ndarray], jax.Array]:
    take = lambda images, index: images.at[index].get(mode="promise_in_bounds")
    return jax.jit(take, out_shardings=spread(mesh))


def fits(split: Split, mesh: Mesh) -> bool:
    """Returns whether the images of a split belong on the devices of this process.

    Not if the devices are CPUs, and not if they would take more than a twentieth of a
    device's memory, or that is not known.
    """
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return False
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    return split.images.nbytes <= _SHARE * limit


def placed(split: Split, mesh: Mesh) -> OnDevice:
    """Returns the split with its images on each device of a mesh."""
    return OnDevice(put(split.images, whole(mesh)), split.labels, mesh)
