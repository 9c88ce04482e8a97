"""Prepares CIFAR-10 and CIFAR-100 in a TFDS data directory that lacks them."""

import contextlib
import fcntl
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from vgg_jax.data import cifar10_sources, cifar10_sums
from vgg_jax.data.cifar10_builders import BUILDERS
from vgg_jax.data.cifar10_sources import Report
from vgg_jax.errors import RunError

_NEEDED_BYTES = 450e6  # a download (170 MB) or npm's two copies, then the data set


def prepare(
    data_dir: str | Path,
    *,
    name: str = "cifar10",
    archive_dir: str | Path | None = None,
    report: Report = print,
) -> Path:
    """Makes sure that `data_dir` holds the whole of a set in its version 3.0.2.

    The data set appears by one rename, after its sums were checked. Concurrent calls
    wait for each other; the leftovers of a killed one are removed by the next.

    Args:
        data_dir: TFDS data directory, on a local file system; created if needed.
        name: "cifar10" or "cifar100".
        archive_dir: directory with an official archive of the set: no other source is
            tried then.
        report: receives a few plain lines of progress; bars go to a terminal.

    Returns:
        The path of the data set, `<data_dir>/<name>/3.0.2`.

    Raises:
        ConfigError: `archive_dir` holds no archive.
        RunError: no source of the set works, `data_dir` cannot be written, or it holds
            the data set in a form that takes TensorFlow to read.
    """
    title, builder = cifar10_sources.TITLES[name], BUILDERS[name]
    if "://" in str(data_dir):
        raise RunError(f"data_dir={data_dir}: prepare {title} in a local directory")
    root = Path(data_dir).expanduser()
    target = root / name / str(builder.VERSION)
    if _is_prepared(target):
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = _locked(root / f".{name}.lock", title, report)
        with lock, _scratch(root, name) as scratch:
            if not _is_prepared(target):
                splits = cifar10_sources.fetch(
                    scratch,
                    archive_dir=archive_dir,
                    check=partial(_check, name),
                    report=report,
                    name=name,
                )
                report(f"{title}: sums verified; writing {target}")
                write(builder(splits, data_dir=scratch), target)
                report(f"{title}: ready in {target}")
    except (OSError, RuntimeError) as error:  # array_record's when the disk is full
        raise RunError(
            f"data_dir={data_dir}: cannot write {title} there ({error}); "
            "give a writable --config.data.data_dir or TFDS_DATA_DIR with 450 MB free"
        ) from error
    return target


def _check(name: str, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Checks pixels and labels of CIFAR-10; CIFAR-100 has the sum of its archive."""
    if name in cifar10_sums.SHA256:
        cifar10_sums.verify(split, images, labels, name=name)


def write(builder: tfds.core.DatasetBuilder, target: Path) -> None:
    """Writes a data set and moves it to `target` when it is whole.

    Args:
        builder: writes to its own data directory, on the file system of `target`.
        target: must not exist.

    Raises:
        OSError, RuntimeError: the disk is full or cannot be written.
    """
    tfds.display_progress_bar(sys.stderr.isatty())
    # TFDS announces the scratch path on standard output; the caller reports instead.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    target.parent.mkdir(parents=True, exist_ok=True)
    builder.data_path.rename(target)


def _is_prepared(target: Path) -> bool:
    info = target / "dataset_info.json"
    if not info.is_file():
        return False
    form = json.loads(info.read_text()).get("fileFormat")
    if form != "array_record":
        raise RunError(
            f"{target} is in {form} form, which takes TensorFlow to read: "
            "give another --config.data.data_dir or TFDS_DATA_DIR"
        )
    return True


@contextlib.contextmanager
def _locked(path: Path, title: str, report: Report) -> Iterator[None]:
    """Holds an exclusive lock, which the system drops even after kill -9."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{title}: waiting for another process ({path})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _scratch(root: Path, name: str) -> Iterator[Path]:
    """Yields a temporary directory, after removing those of killed processes."""
    prefix = f".{name}.incomplete-"
    for leftover in root.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if (free := shutil.disk_usage(root).free) < _NEEDED_BYTES:
        raise OSError(f"{free / 1e6:.0f} MB free, {_NEEDED_BYTES / 1e6:.0f} needed")
    with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as scratch:
        yield Path(scratch)
