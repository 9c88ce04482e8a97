"""Splits that are decoded from disk as they are needed, for sets larger than memory."""

import dataclasses
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import grain
import numpy as np
from absl import flags

from vgg_jax.data.framing import Centre, Frame, Framing, RandomCrop
from vgg_jax.data.tfds_reader import Encoded
from vgg_jax.errors import RESUMES, RunError

_THREADS = 8  # each decodes one batch at a time
_AHEAD = 8  # batches held ready
_AHEAD_OF_WORKER = 2  # batches that each process holds ready
_TRIED = 100  # pictures in a row that are damaged, before a run ends
_NAMED = 3  # of them, of which the names are told
AT_ONCE = _THREADS + _AHEAD  # batches in memory


class Reader(Protocol):
    """What decodes the pictures of a whole split by number.

    Attributes:
        shape: `(H, W, C)` of every image, as `framing` cuts them.
        framing: what is cut out of every picture; None: they are whole.
        source: a name of the files that it reads.
    """

    shape: tuple[int, int, int]
    framing: Centre | None
    source: str

    def encoded(self, numbers: Any) -> list[Encoded]:
        """Returns the pictures of these numbers, undecoded."""
        ...

    def decode(self, data: Any, frame: Frame | None) -> np.ndarray:
        """Returns the pixels of one, uint8 `[H, W, C]`."""
        ...


def _leave_interrupts(worker: int, workers: int) -> None:
    """Leaves Ctrl-C, which a terminal sends to all, to the process that trains."""
    del worker, workers
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class _Read(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    damaged: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A split on disk. It gives the same batches as `in_memory.Split`, bit for bit.

    A picture that cannot be decoded stops nothing: it is noted in `damaged`. In
    training the next picture of the split takes its place, in evaluation it is black.

    Attributes:
        readers: one per whole split that examples come from.
        part: int64 `[N]`, which of the readers each example belongs to.
        number: int64 `[N]`, number of each example's record in its reader.
        damaged: what could not be decoded, by name, and why; filled as it is met.
        scales: of the random crops that training sees (`framing.RandomCrop`); empty:
            it sees what evaluation sees.
        workers: processes that decode; 0: threads of this process.
        framing: what is cut out of each picture, where not what its reader does.
        replaces: whether others take the place of damaged pictures.
    """

    readers: tuple[Reader, ...]
    part: np.ndarray
    number: np.ndarray
    damaged: dict[str, str]
    scales: Sequence[int] = ()
    workers: int = 0
    framing: Framing | None = None
    replaces: bool = False

    def __len__(self) -> int:
        return len(self.number)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of every image."""
        return self.readers[0].shape

    def in_epoch(self, seed: int, epoch: int) -> Self:
        """Returns the split as training sees it in an epoch.

        Args:
            seed: of the run.
            epoch: from 0.
        """
        split = dataclasses.replace(self, replaces=True)
        if not self.scales:
            return split
        crop = RandomCrop(self.image_shape[0], tuple(self.scales), seed, epoch)
        return dataclasses.replace(split, framing=crop)

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decodes some examples.

        Args:
            index: int `[B]`, numbers of the examples in this split.

        Returns:
            Images, uint8 `[B, H, W, C]`, and labels, int32 `[B]`.
        """
        return self._noted(self._read(index))

    def batches(
        self, indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields `take(index)` for each index, in order, decoded ahead."""
        pipeline = grain.MapDataset.source(indices).map(self._read)
        if not self.workers:
            ahead = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
            return map(self._noted, pipeline.to_iter_dataset(ahead))
        if not flags.FLAGS.is_parsed():  # Grain's workers ask for flags of its own
            flags.FLAGS.mark_as_parsed()
        one = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        processes = grain.MultiprocessingOptions(self.workers, _AHEAD_OF_WORKER)
        ahead = pipeline.to_iter_dataset(one).mp_prefetch(processes, _leave_interrupts)
        return map(self._noted, ahead)

    def picture(self, number: int) -> tuple[np.ndarray, int]:
        """Returns a whole picture, uint8 `[h, w, C]`, and its label.

        Raises:
            ValueError: it cannot be decoded; the message is why.
        """
        reader, (encoded,) = self._encoded(number)
        return reader.decode(encoded.data, None), encoded.label

    def name(self, number: int) -> str:
        """Returns what a picture is called: for one of a folder, its path there."""
        return self._encoded(number)[1][0].name

    def _encoded(self, number: int) -> tuple[Reader, list[Encoded]]:
        reader = self.readers[self.part[number]]
        return reader, reader.encoded([self.number[number]])

    def _noted(self, read: _Read) -> tuple[np.ndarray, np.ndarray]:
        self.damaged.update(read.damaged)
        return read.images, read.labels

    def _read(self, index: np.ndarray) -> _Read:
        images = np.zeros((len(index), *self.image_shape), np.uint8)
        labels, damaged = np.empty(len(index), np.int32), {}
        for which, reader in enumerate(self.readers):
            (places,) = np.nonzero(self.part[index] == which)
            if not len(places):
                continue
            found = reader.encoded(self.number[index[places]])
            for place, encoded in zip(places, found, strict=True):
                number = int(index[place])
                image, labels[place] = self._decoded(number, encoded, damaged)
                images[place] = 0 if image is None else image
        return _Read(images, labels, damaged)

    def _decoded(
        self, number: int, encoded: Encoded, damaged: dict[str, str]
    ) -> tuple[np.ndarray | None, int]:
        """Returns the pixels and the label of an example, or of what replaces it."""
        for _ in range(_TRIED):
            reader = self.readers[self.part[number]]
            framing = self.framing or reader.framing
            try:
                image = reader.decode(encoded.data, framing and framing.at(number))
                if image.shape == self.image_shape:
                    return image, encoded.label
                damaged[encoded.name] = f"its shape is {list(image.shape)}"
            except ValueError as error:
                damaged[encoded.name] = str(error)
            if not self.replaces:
                return None, encoded.label
            number = (number + 1) % len(self)
            _, (encoded,) = self._encoded(number)
        names = list(damaged)[-_NAMED:]
        raise RunError(
            f"{_TRIED} pictures in a row cannot be decoded, such as {', '.join(names)} "
            f"({damaged[names[0]]}): mend the data set{RESUMES}"
        )
