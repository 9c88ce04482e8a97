"""Mean soft-max posteriors of pictures, of which networks see many parts."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vgg_jax import mesh as meshes
from vgg_jax.evaluation.grouping import Group, Grouping, Item
from vgg_jax.evaluation.ways import WAYS
from vgg_jax.interop.network import Network
from vgg_jax.nn import dense
from vgg_jax.nn.conv import quick_to_compile
from vgg_jax.nn.preprocessing import normalize
from vgg_jax.nn.softmax import softmax


class Posteriors:
    """Networks at work: scaled pictures go in, mean posteriors come out.

    Args:
        networks: with heads for as many classes.
        count: number of pictures, N.
        ways: of `ways.WAYS`, which count alike.
        scales: how many of each picture there are.
        size: pixels of the parts that are not whole.
        flip: whether mirror images are seen too.
        pixels: per batch, about.

    Attributes:
        means: float64 `[networks, N, K]`; whole once `finish` was called.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        count: int,
        *,
        ways: Sequence[str],
        scales: int,
        size: int,
        flip: bool,
        pixels: int,
    ) -> None:
        self._mesh = mesh = meshes.over()
        placed = [meshes.on_all(n.configured(dtype="float32"), mesh) for n in networks]
        quick = quick_to_compile("float32")
        soon = [network.configured(conv=quick) for network in placed]
        self._networks = {True: placed, False: soon}  # by `Group.is_full`
        self._size, self._flip = size, flip
        self._groupings = {way: Grouping(pixels, mesh.size) for way in ways}
        self._shares = {w: 1 / (len(ways) * scales * WAYS[w].parts_count) for w in ways}
        classes = networks[0].model.num_classes
        self.means = np.zeros((len(networks), count, classes))

    @property
    def programs(self) -> int:
        """How many were compiled: one per shape and network."""
        shapes = [len(grouping.shapes) for grouping in self._groupings.values()]
        return sum(shapes) * len(self.means)

    def add(self, number: int, scaled: Sequence[np.ndarray]) -> None:
        """Takes a picture at every scale, uint8 `[h, w, C]` each."""
        for way, grouping in self._groupings.items():
            parts = (part for x in scaled for part in WAYS[way].parts(x, self._size))
            for group in grouping.add([Item(number, part) for part in parts]):
                self._see(group, way)

    def finish(self) -> None:
        """Has the networks see what waits for a batch to be full."""
        for way, grouping in self._groupings.items():
            for group in grouping.rest():
                self._see(group, way)

    def _see(self, group: Group, way: str) -> None:
        pixels, sizes = meshes.in_parts((group.pixels, group.sizes), self._mesh)
        shown = [pixels, _mirrored(pixels, sizes)] if self._flip else [pixels]
        networks = self._networks[group.is_full]
        posteriors = _compiled(self._mesh, WAYS[way].whole)
        for mean, network in zip(self.means, networks, strict=True):
            for images in shown:
                rows = posteriors(network, images, sizes)
                seen = np.asarray(rows, np.float64)[: len(group.numbers)]
                share = self._shares[way] / len(shown)
                np.add.at(mean, group.numbers, share * seen)


@functools.cache
def _compiled(mesh: Mesh, whole: bool) -> Callable[..., jax.Array]:
    return jax.jit(meshes.by_rows(functools.partial(_of_group, whole), mesh))


def _of_group(
    whole: bool, network: Network, pixels: jax.Array, sizes: jax.Array
) -> jax.Array:
    """Returns the posteriors of images, float32 `[B, K]`."""
    images = normalize(pixels, network.preprocessing)
    model, variables = network.model, network.variables
    if whole:
        return softmax(dense.class_scores(model, variables, images, sizes))
    return softmax(model.apply(variables, images))  # pyright: ignore


@jax.jit
def _mirrored(images: jax.Array, sizes: jax.Array) -> jax.Array:
    """Mirrors each image within its size; the padding stays at the right."""
    place = jnp.arange(images.shape[2])[None]
    width = sizes[:, 1:]
    source = jnp.where(place < width, width - 1 - place, place)
    return jnp.take_along_axis(images, source[:, None, :, None], axis=2)
