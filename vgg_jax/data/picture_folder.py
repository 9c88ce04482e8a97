"""Folders of pictures as a data set, read as they are: `data.name=folder:photos`.

Nothing is converted or held in memory. Pictures lie in `photos/<class>/`, or in
`photos/<split>/<class>/`. They come in an order that mixes the classes and that depends
on their names alone, so that slices like `train[:80%]` hold every class.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from vgg_jax.data import folder_layout, pictures
from vgg_jax.data.framing import Centre, Frame
from vgg_jax.data.tfds_reader import Encoded
from vgg_jax.errors import ConfigError

PREFIX = "folder:"
_NAMED = 5  # files that are no pictures, of which the names are told


class _Files(NamedTuple):
    """The pictures of a split, in order, in few bytes: ImageNet has 1.3 million.

    Attributes:
        root: the directory of the classes.
        split: its name.
        names: below `root`: "cat/1.jpg".
        labels: int32 `[N]`.
    """

    root: str
    split: str
    names: list[str]
    labels: np.ndarray

    def path(self, number: int) -> str:
        return f"{self.root}/{self.names[number]}"

    def name(self, number: int) -> str:
        return f"{self.split}/{self.names[number]}"


class PictureFolder:
    """A folder of pictures by split and class.

    Args:
        path: the folder.
        report: receives a line where files were passed over.

    Attributes:
        classes: their names, sorted: the number of a class is its place.
        counts: what `splits.spans_of` takes: for each split its `num_examples`.

    Raises:
        ConfigError: it is not laid out so; see `folder_layout.find`.
    """

    def __init__(self, path: Path, report: Callable[[str], None] = print) -> None:
        self.path = path
        splits, passed_over = _pictures(folder_layout.find(path, field="data.name"))
        if passed_over:
            report(_told(path, passed_over))
        self.classes = tuple(splits["train"])
        self._files = {name: self._ordered(name, s) for name, s in splits.items()}
        self.counts = {
            name: SimpleNamespace(num_examples=len(files.names))
            for name, files in self._files.items()
        }

    def _ordered(self, split: str, classes: Mapping[str, Sequence[Path]]) -> _Files:
        labels = {label: number for number, label in enumerate(self.classes)}
        files = [
            (f"{label}/{file.name}", labels[label])
            for label, inside in classes.items()
            for file in inside
        ]
        files.sort(key=lambda file: _mixed(f"{split}/{file[0]}"))
        names, numbers = zip(*files, strict=True)
        root = next(iter(classes.values()))[0].parents[1]
        return _Files(str(root), split, [*names], np.array(numbers, np.int32))

    def ids(self, split: str) -> np.ndarray:
        """Returns the names of the pictures, each with its bytes, `[N]`."""
        files = self._files[split]
        said = [
            f"{files.name(i)} {_size(files.path(i))}" for i in range(len(files.names))
        ]
        return np.array([text.encode(errors="surrogateescape") for text in said], "S")

    def reader(self, split: str, size: int, scale: int = 0) -> "FolderReader":
        """Returns what decodes the pictures of a split."""
        return FolderReader(self._files[split], Centre(size, scale))


class FolderReader:
    """Decodes pictures of a folder by number.

    Args:
        files: the pictures of a split, in order.
        framing: what is cut out of every picture, unless something else is asked for.

    Attributes:
        shape: `(H, W, C)` of every image.
        source: directory of the split.
    """

    def __init__(self, files: _Files, framing: Centre) -> None:
        self._files = files
        self.framing: Centre | None = framing
        self.shape: tuple[int, int, int] = (framing.size, framing.size, 3)
        self.source = os.path.abspath(files.root)
        pictures.accept_large()

    def __len__(self) -> int:
        return len(self._files.names)

    def encoded(self, numbers: Iterable[int] | np.ndarray) -> list[Encoded]:
        """Returns the pictures of these numbers, undecoded."""
        files = self._files
        return [
            Encoded(files.path(n), int(files.labels[n]), files.name(n))
            for n in map(int, numbers)
        ]

    def decode(self, data: str, frame: Frame | None) -> np.ndarray:
        """Returns the pixels of a file, upright, RGB, uint8 `[H, W, 3]`.

        Args:
            data: path of the file.
            frame: what is cut out of it; None: nothing. For a random crop, a JPEG that
                is much larger than its scale is decoded at a half, a quarter or an
                eighth: two to four times as fast as the whole. simplejpeg takes as long
                then, and two thirds of the time where nothing can be left out
                (results/decoding), which is not worth another dependency.

        Raises:
            ValueError: it is no picture that has a conversion to RGB.
        """
        with pictures.opened(data) as picture:
            if frame and not frame.is_central:
                picture.draft("RGB", frame.drafted(*picture.size))
            picture = pictures.upright(picture)
            return np.asarray(frame.cut(picture) if frame else picture)


def _size(file: str) -> int:
    """Returns the bytes of a file; 0 where a link leads nowhere."""
    try:
        return os.stat(file).st_size
    except OSError:
        return 0


def _mixed(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def _pictures(splits: folder_layout.Splits) -> tuple[folder_layout.Splits, list[Path]]:
    """Returns the files whose names say that they are pictures, and the others.

    Raises:
        ConfigError: a class has no picture.
    """
    known = pictures.suffixes()
    is_one = lambda file: file.suffix.lower() in known
    kept = {
        split: {label: [*filter(is_one, fs)] for label, fs in classes.items()}
        for split, classes in splits.items()
    }
    for split, classes in kept.items():
        for label, inside in classes.items():
            if not inside:
                raise ConfigError(
                    f"no file of class {label!r} in {split} is a picture by its name "
                    "(.jpg, .png, ...): add some, or remove the class"
                )
    return kept, [f for f in folder_layout.files_of(splits) if not is_one(f)]


def _told(path: Path, files: Sequence[Path]) -> str:
    named = ", ".join(str(file.relative_to(path)) for file in files[:_NAMED])
    more = f" and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
    return f"{path}: passed over, as no pictures by their names: {named}{more}"
