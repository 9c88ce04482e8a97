"""CIFAR-10 and CIFAR-100 as TFDS data sets that are prepared without TensorFlow.

The stock TFDS builders need TensorFlow to encode images. These hand TFDS encoded
PNG files, and the result is what the stock class reads: same features, ids and order.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vgg_jax.data import cifar10_sources
from vgg_jax.data.cifar10_archives import Splits
from vgg_jax.data.cifar10_sources import Report
from vgg_jax.errors import RunError

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
# Sums of the uint8 pixels (NHWC) and of the uint8 labels, both in canonical order.
SHA256: dict[str, dict[str, tuple[str, str]]] = {
    "cifar10": {
        "train": (
            "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        ),
        "test": (
            "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        ),
    },
    "cifar10_sample": {
        "train": (
            "53981c081145185e466a75a2d38b4f9e339f21369fb0a8ec72698ed5d9568ab3",
            "5d60d326d3ca3b6f16d99fef0b1575bf7c79a7760e7616ec97fa7b56cacc00ee",
        ),
        "test": (
            "cc2bd4479eda140793858a9ea7f9016e6870fefd7f69f172720267e933ec44a5",
            "bf5fd7ab55257c7eeece32a36d229c4767d2479b59c8d506b7e35494f9cbf574",
        ),
    },
}
_NEEDED_BYTES = 450e6  # a download (170 MB) or npm's two copies, then the data set
_CITATION = """\
@TECHREPORT{Krizhevsky09learningmultiple,
    author = {Alex Krizhevsky},
    title = {Learning multiple layers of features from tiny images},
    institution = {},
    year = {2009}
}"""


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes arrays as `cifar10/3.0.2`, in array_record form.

    It is not registered, so that `tfds.builder("cifar10")` stays the stock class.

    Args:
        splits: the whole of CIFAR-10, in canonical order.
        **kwargs: arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    VERSION = tfds.core.Version("3.0.2")
    DESCRIPTION = (
        "The CIFAR-10 dataset consists of 60000 32x32 colour images in 10 classes, "
        "with 6000 images per class. There are 50000 training images and 10000 test "
        "images."
    )
    PNG = {"compress_level": 6}  # Pillow's options

    def __init__(self, splits: Splits, **kwargs: Any) -> None:
        self._splits = splits
        super().__init__(file_format="array_record", **kwargs)

    def select(self, split: str, labels: np.ndarray) -> np.ndarray:
        """Returns the indices of the images to write, int `[M]`, increasing.

        All of them here; a subclass may keep fewer.

        Args:
            split: "train" or "test".
            labels: uint8 `[N]`, of the whole split.
        """
        del split
        return np.arange(len(labels))

    def features(self) -> dict[str, Any]:
        """Returns the features of the stock class."""
        return {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        features = self.features()
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            citation=_CITATION,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = self._splits[split]
        for index in self.select(split, labels).tolist():
            png = io.BytesIO()
            Image.fromarray(images[index]).save(png, "png", **self.PNG)
            png.seek(0)
            name = f"{split}_{index:05d}"
            # TFDS shuffles by this key: the stock builder's, hence the same order.
            yield index, {"id": name, "image": png, **self.labels(labels[index])}

    def labels(self, row: np.ndarray) -> dict[str, Any]:
        """Returns the features that the labels of an example fill."""
        return {"label": row}


class Cifar100(Cifar10, skip_registration=True):
    """Writes arrays as `cifar100/3.0.2`; names of classes are those of the archive."""

    DESCRIPTION = (
        "This dataset is just like the CIFAR-10, except it has 100 classes containing "
        "600 images each, grouped into 20 superclasses."
    )

    def features(self) -> dict[str, Any]:
        """Returns the features of the stock class."""
        fine, coarse = map(list, self._splits.names)
        return {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=fine),
            "coarse_label": tfds.features.ClassLabel(names=coarse),
        }

    def labels(self, row: np.ndarray) -> dict[str, Any]:
        """Returns the features that the two labels of an example fill."""
        return {"label": row[0], "coarse_label": row[1]}


BUILDERS = {"cifar10": Cifar10, "cifar100": Cifar100}


def verify(
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    order: np.ndarray | None = None,
    name: str = "cifar10",
) -> None:
    """Checks a whole split against `SHA256`.

    Args:
        split: "train" or "test".
        images: uint8 RGB `[N, 32, 32, 3]`.
        labels: int `[N]`.
        order: int `[N]`, indices that put the examples into canonical order; None if
            they are in that order already.
        name: "cifar10" or "cifar10_sample".

    Raises:
        RunError: the pixels or the labels are not those of the data set.
    """
    columns = (("pixels", images), ("labels", labels))
    for (what, array), expected in zip(columns, SHA256[name][split], strict=True):
        digest = hashlib.sha256()
        for place in range(len(array)) if order is None else order:
            digest.update(np.uint8(array[place]).tobytes())
        if (got := digest.hexdigest()) != expected:
            raise RunError(
                f"SHA-256 of the {name} {split} {what} is {got}, not {expected}"
            )


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
    if name in SHA256:
        verify(split, images, labels, name=name)


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
