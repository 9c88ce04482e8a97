"""The archives of CIFAR-10 and CIFAR-100, read in canonical order.

Nothing in them is decoded before the sum of the whole file is right, and a file in one
has a size that it must not exceed.
"""

import hashlib
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vgg_jax.errors import RunError

# uint8 RGB [N, 32, 32, 3]; uint8 [N], or [N, 2] of CIFAR-100: label, coarse label
Split = tuple[np.ndarray, np.ndarray]


class Splits(dict[str, Split]):
    """ "train" and "test".

    Attributes:
        names: of the fine and of the coarse labels, as the archive of CIFAR-100 has
            them; none of CIFAR-10.
    """

    names: tuple[tuple[str, ...], ...] = ()


# Published SHA-256 of each archive; of CIFAR-100, as TensorFlow Datasets (the binary
# one) and Keras (the Python one) check them.
ARCHIVES = {
    "cifar10": {
        "cifar-10-binary.tar.gz": (
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        ),
        "cifar-10-python.tar.gz": (
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
        ),
    },
    "cifar100": {
        "cifar-100-binary.tar.gz": (
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
        ),
        "cifar-100-python.tar.gz": (
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
        ),
    },
}
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # npm's; sic
_WHICH = ("fine", "coarse")  # labels of CIFAR-100
_BATCHES_100 = {"train": ["train"], "test": ["test"]}
_MOST_BYTES = 40_000_000  # of a file in an archive; 31 MB are the most
_MOST_BYTES_100 = 160_000_000  # 154 MB are the most
_CORRUPT = (OSError, EOFError, LookupError, TypeError, ValueError, tarfile.TarError)
_CORRUPT += (pickle.UnpicklingError, zlib.error)


def read_archive(path: Path, name: str) -> Splits:
    """Reads an official archive without extracting it to disk.

    Args:
        path: a file with one of the names in `ARCHIVES[name]`.
        name: "cifar10" or "cifar100".

    Raises:
        RunError: the file cannot be read, or its SHA-256 is not the published one.
    """
    _check_sum(path, "sha256", ARCHIVES[name][path.name])
    ending, fine = ("" if "python" in path.name else ".bin"), name == "cifar100"
    batches = _BATCHES_100 if fine else _BATCHES
    files = [f"{batch}{ending}" for part in batches.values() for batch in part]
    files += [f"{which}_label_names.txt" for which in _WHICH] + ["meta"] if fine else []
    most = _MOST_BYTES_100 if fine else _MOST_BYTES
    read = _binary_batch if ending else _python_batch

    def parser(files: dict[str, bytes]) -> Splits:
        splits = _assemble(partial(read, files, fine), batches)
        splits.names = _names(files) if fine else ()
        return splits

    return _parse(path, files, parser, most)


def read_npm(path: Path, sha512: str) -> Splits:
    """Reads the package of npm: PNG sheets, one image per row, and the labels.

    Raises:
        RunError: the file cannot be read, or its SHA-512 is another.
    """
    _check_sum(path, "sha512", sha512)
    names = [f"{b}.png" for batches in _BATCHES.values() for b in batches]
    return _parse(path, [*names, *_LABELS.values()], _parse_npm, _MOST_BYTES)


def _check_sum(path: Path, algorithm: str, expected: str) -> None:
    """Checks a file before anything in it is decoded."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    if digest != expected:
        kind = algorithm.upper().replace("SHA", "SHA-")
        raise RunError(f"{path.name} is not the official file: its {kind} is {digest}")


def _parse(
    path: Path,
    names: Sequence[str],
    parser: Callable[[dict[str, bytes]], Splits],
    most: int,
) -> Splits:
    """Applies `parser` to the files in the tar archive `path` with these base names.

    None of them may have more than `most` bytes.
    """
    contents = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = Path(member.name).name
                if name not in names or not (file := tar.extractfile(member)):
                    continue
                if member.size > most:
                    raise ValueError(f"{name} has {member.size:,} bytes")
                contents[name] = file.read()
            return parser(contents)
    except _CORRUPT as error:
        raise RunError(f"cannot parse {path.name}: {error!r}") from error


def _binary_batch(files: dict[str, bytes], fine: bool, name: str) -> Split:
    """Reads rows of a label (a coarse one and a fine one of CIFAR-100) and pixels."""
    labels = 2 if fine else 1
    rows = np.frombuffer(files[f"{name}.bin"], np.uint8).reshape(-1, labels + 3072)
    images = _from_planes(rows[:, labels:])
    return images, rows[:, 1::-1] if fine else rows[:, 0]


def _python_batch(files: dict[str, bytes], fine: bool, name: str) -> Split:
    content = _ArrayUnpickler(io.BytesIO(files[name]), encoding="bytes").load()
    keys = (b"fine_labels", b"coarse_labels") if fine else (b"labels",)
    labels = np.array([content[key] for key in keys], np.uint8)
    return _from_planes(content[b"data"]), labels.T if fine else labels[0]


def _parse_npm(files: dict[str, bytes]) -> Splits:
    def batch(name: str) -> Split:
        pixels = np.asarray(Image.open(io.BytesIO(files[f"{name}.png"])))
        return pixels.reshape(-1, 32, 32, 3), labels[name]

    labels = {"test_batch": json.loads(files[_LABELS["test"]])}
    parts = np.array_split(json.loads(files[_LABELS["train"]]), 5)
    labels |= dict(zip(_BATCHES["train"], parts, strict=True))
    return _assemble(batch, _BATCHES)


def _names(files: dict[str, bytes]) -> tuple[tuple[str, ...], ...]:
    """Returns the fine and the coarse names of CIFAR-100."""
    if "meta" in files:
        meta = _ArrayUnpickler(io.BytesIO(files["meta"]), encoding="bytes").load()
        lists = [meta[f"{which}_label_names".encode()] for which in _WHICH]
        return tuple(tuple(name.decode() for name in names) for names in lists)
    texts = [files[f"{which}_label_names.txt"].decode() for which in _WHICH]
    return tuple(tuple(text.split()) for text in texts)


def _from_planes(rows: np.ndarray) -> np.ndarray:
    """Turns the official rows, one plane per colour, into images [N, 32, 32, 3]."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _assemble(batch: Callable[[str], Split], batches: dict[str, list[str]]) -> Splits:
    """Joins the batches of the archive, which `batch` reads by name, into splits."""
    splits = Splits()
    for split, names in batches.items():
        images, labels = zip(*map(batch, names), strict=True)
        splits[split] = np.concatenate(images), np.concatenate(labels).astype(np.uint8)
    return splits


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and nothing else: a pickle may otherwise run any code."""

    _ALLOWED = {
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "numpy" and name in self._ALLOWED:
            return self._ALLOWED[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in CIFAR-10")
