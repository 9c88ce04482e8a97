"""What a network says of pictures: probabilities of the classes, file by file."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from vgg_jax import mesh as meshes
from vgg_jax.data import pictures
from vgg_jax.errors import ConfigError, choose
from vgg_jax.interop.network import HEAD, Network
from vgg_jax.nn.images import ValueRange
from vgg_jax.nn.softmax import most_probable, softmax
from vgg_jax.nn.views import VIEWS, averaged

# Threads that decode, each so many pictures at a time: Pillow lets others run, but
# small pictures one by one, in more threads than cores, take twice as long.
_THREADS = min(4, os.cpu_count() or 1)
_GROUP = 16


class Prediction(NamedTuple):
    """What a network says of a file.

    Attributes:
        file: the file.
        picture: as the network saw it, uint8 `[size, size, C]`; None where there is
            none.
        probabilities: of each class, float32 `[K]`; None likewise.
        error: why there is none; otherwise empty.
    """

    file: Path
    picture: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    error: str = ""

    def top(self, count: int) -> list[tuple[int, float]]:
        """Returns the most probable classes, as number and probability.

        >>> Prediction(Path("x"), probabilities=np.float32([0.25, 0.5, 0.25])).top(2)
        [(1, 0.5), (0, 0.25)]
        """
        assert self.probabilities is not None
        return most_probable(self.probabilities, count)


def probabilities(
    network: Network,
    images: ArrayLike,
    *,
    views: int = 1,
    value_range: ValueRange | None = None,
) -> jax.Array:
    """Returns the probability of each class, float32 `[B, K]`.

    A pure function of weights and images, for `jax.jit` and the like.

    Args:
        network: with a head.
        images: `[B, H, W, C]`, RGB, uint8 or floating point.
        views: number of views of an image whose logits are averaged
            (`nn.views`).
        value_range: of floating-point images (`images.network_input`).

    Raises:
        ConfigError: the network has no head, or the images are not what was declared;
            or `views` is unknown.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 |", 10, head="compact"), "unit")
    >>> found = probabilities(network, np.zeros((2, 8, 8, 3), np.uint8))
    >>> found.shape, found.sum(1).round(4).tolist()
    ((2, 10), [1.0, 1.0])
    """
    choose(VIEWS, views, "views")
    seen = network.seen(images, HEAD, value_range)
    network.check_map(seen.shape, HEAD)
    apply = partial(network.model.apply, network.variables)
    return softmax(averaged(apply, seen, views))


def predictions(
    network: Network,
    files: Sequence[Path],
    *,
    size: int = 0,
    views: int = 1,
    batch_size: int = 256,
) -> Iterator[Prediction]:
    """Yields what a network says of each file, in order.

    Pictures of any size and mode: the smaller side is scaled to `size` pixels and the
    centre cut out (`pictures.fit`); for a grey network they become grey. Threads decode
    the next batch meanwhile. A file that is no picture has an `error`; the others do
    not suffer from it.

    Args:
        network: with a head.
        files: the pictures.
        size: height and width in pixels; 0: those of the images that it was trained on.
        views: as in `probabilities`.
        batch_size: pictures at a time, shared by all devices.

    Raises:
        ConfigError: the network has no head, or does not say its size.
    """
    size = size or network.size
    if not size:
        raise ConfigError(
            f"{network.source} does not say the size of its images: give it in pixels"
        )
    network.check_weights(HEAD)
    pictures.accept_large()
    mesh = meshes.over()
    batch_size = -(-(min(batch_size, len(files)) or 1) // mesh.size) * mesh.size
    network = network.configured(dtype="float32")
    network = network.prepared((batch_size // mesh.size, size, size))
    network = meshes.on_all(network, mesh)
    compiled = partial(_compiled(mesh, views), network)
    run = lambda images: compiled(meshes.in_parts(images, mesh))
    read = partial(_read, size=size, channels=network.channels)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = itertools.batched(files, batch_size)
        coming = _submitted(pool, read, next(chunks, ()))
        while coming:
            found, coming = coming, _submitted(pool, read, next(chunks, ()))
            batch = [prediction for group in found for prediction in group.result()]
            yield from _classified(run, batch, batch_size)


@functools.cache  # so that a second call finds the program compiled
def _compiled(mesh: Mesh, views: int) -> Callable[..., jax.Array]:
    return jax.jit(meshes.by_rows(partial(probabilities, views=views), mesh))


def _submitted(
    pool: ThreadPoolExecutor, read: partial, files: Iterable[Path]
) -> list[Future[list[Prediction]]]:
    return [pool.submit(read, group) for group in itertools.batched(files, _GROUP)]


def _read(files: Iterable[Path], size: int, channels: int) -> list[Prediction]:
    return [_read_one(file, size, channels) for file in files]


def _read_one(file: Path, size: int, channels: int) -> Prediction:
    try:
        return Prediction(file, picture=pictures.read(file, size, channels))
    except ValueError as error:
        return Prediction(file, error=str(error))


def _classified(
    run: Callable[[np.ndarray], jax.Array], batch: list[Prediction], batch_size: int
) -> Iterator[Prediction]:
    """Adds the probabilities; every batch is filled up to one shape, compiled once."""
    images = [p.picture for p in batch if p.picture is not None]
    if not images:
        yield from batch
        return
    padded = np.stack(images + images[:1] * (batch_size - len(images)))
    rows = iter(np.asarray(run(padded)))
    for prediction in batch:
        if prediction.picture is None:
            yield prediction
        else:
            yield prediction._replace(probabilities=next(rows))
