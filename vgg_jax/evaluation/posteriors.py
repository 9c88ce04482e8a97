"""Mean soft-max posteriors of pictures, of which networks see many parts."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vgg_jax import mesh as meshes
from vgg_jax.evaluation.grouping import Group, Grouping, Item
from vgg_jax.evaluation.ways import WAYS
from vgg_jax.interop.network import Network
from vgg_jax.nn import dense
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
        configured = [network.configured(dtype="float32") for network in networks]
        self._networks = [meshes.on_all(network, mesh) for network in configured]
        self._size, self._flip = size, flip
        self._groupings = {way: Grouping(pixels, mesh.size) for way in ways}
        self._shares = {w: 1 / (len(ways) * scales * WAYS[w].parts_count) for w in ways}
        classes = networks[0].model.num_classes
        self.means = np.zeros((len(networks), count, classes))

    @property
    def programs(self) -> int:
        """How many were compiled: one per shape and network."""
        shapes = [len(grouping.shapes) for grouping in self._groupings.values()]
        return sum(shapes) * len(self._networks)

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
        for mean, network in zip(self.means, self._networks, strict=True):
            rows = _of_group(network, pixels, sizes, WAYS[way].whole, self._flip)
            seen = np.asarray(rows, np.float64)[: len(group.numbers)]
            np.add.at(mean, group.numbers, self._shares[way] * seen)


@functools.partial(jax.jit, static_argnames=("whole", "flip"))
def _of_group(
    network: Network, pixels: jax.Array, sizes: jax.Array, whole: bool, flip: bool
) -> jax.Array:
    """Returns the posteriors of a group `[B, K]`, averaged over the mirror images."""
    images = normalize(pixels, network.preprocessing)
    shown = [images, _mirrored(images, sizes)] if flip else [images]
    scores = _scores(network, sizes if whole else None)
    return functools.reduce(jnp.add, [softmax(scores(x)) for x in shown]) / len(shown)


def _scores(
    network: Network, sizes: jax.Array | None
) -> Callable[[jax.Array], jax.Array]:
    model, variables = network.model, network.variables
    if sizes is None:
        return lambda x: model.apply(variables, x)  # pyright: ignore
    return lambda x: dense.class_scores(model, variables, x, sizes)


def _mirrored(images: jax.Array, sizes: jax.Array) -> jax.Array:
    """Mirrors each image within its size; the padding stays at the right."""
    place = jnp.arange(images.shape[2])[None]
    width = sizes[:, 1:]
    source = jnp.where(place < width, width - 1 - place, place)
    return jnp.take_along_axis(images, source[:, None, :, None], axis=2)
