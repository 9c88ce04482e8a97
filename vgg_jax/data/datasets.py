"""Data sets by name: where they are, how they are split, that they are whole."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants

from vgg_jax.data import cifar10, splits, tfds_reader
from vgg_jax.data.splits import SKLEARN_80_20, Spans
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError, RunError

SAMPLE_DIR = Path(__file__).resolve().parents[2] / "data"


class Split(NamedTuple):
    """A split in memory.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int32 `[N]`.

    >>> split = Split(np.zeros((3, 8, 8, 1), np.uint8), np.arange(3, dtype=np.int32))
    >>> len(split), split.image_shape, split.take(np.array([2, 0]))[1].tolist()
    (3, (8, 8, 1), [2, 0])
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images, uint8 `[B, H, W, C]`, and labels, int32 `[B]`, by number."""
        return self.images[index], self.labels[index]

    def batches(
        self, indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields `take(index)` for each index."""
        return map(self.take, indices)


class Dataset(NamedTuple):
    """A data set, split.

    Attributes:
        name: as given to `load`.
        classes: names of the classes, in the order of their labels.
        train, validation, test: the splits; `validation` is None where none is held
            out.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | Streamed
    validation: Split | Streamed | None
    test: Split | Streamed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a run's images come from; the fields are the arguments of `load`."""

    name: str
    data_dir: str = ""
    archive_dir: str = ""
    train: str = "train"
    validation: str = SKLEARN_80_20
    test: str = "test"
    stream: bool = False


def load(
    name: str,
    *,
    data_dir: str = "",
    archive_dir: str = "",
    train: str = "train",
    validation: str = SKLEARN_80_20,
    test: str = "test",
    stream: bool = False,
    size: int = 0,
    report: Callable[[str], None] = print,
) -> Dataset:
    """Finds (or prepares, for cifar10), reads, checks and splits a data set.

    Args:
        name: TFDS name (`cifar10`, `cifar100`, `imagenette/320px-v2`), or
            `cifar10_sample`, the real images that come with this repository.
        data_dir: TFDS directory; if empty, `TFDS_DATA_DIR`, else TFDS' own default.
        archive_dir: directory with CIFAR-10's official archive, tried first where the
            set has to be prepared; may be empty.
        train: TFDS split, sliced or not, counted in the order of the files.
        validation: "sklearn_80_20" for scikit-learn's `train_test_split(test_size=0.2,
            random_state=42)` of `train` in canonical order;
            "none"; or a TFDS split.
        test: TFDS split.
        stream: whether to decode images when they are needed instead of keeping all of
            them in memory; their SHA-256 is not checked then.
        size: height and width in pixels to which images of varying size are scaled and
            centre-cropped; 0 where all images share one size.
        report: receives a line when something takes long.

    Raises:
        ConfigError: there is no such data set or split, or two of the splits overlap.
        RunError: the data set is corrupt, or none of its sources works.

    >>> dataset = load("cifar10_sample", train="train[:90%]", stream=True)
    >>> len(dataset.train), len(dataset.validation), dataset.train.image_shape
    (2880, 720, (32, 32, 3))
    """
    builder = find(name, data_dir=data_dir, archive_dir=archive_dir, report=report)
    if stream:
        reader = functools.cache(partial(tfds_reader.Reader, builder, size=size))
        ids = functools.cache(lambda split: reader(split).ids())
        gather = partial(_point_to, fetch=reader)
    else:
        records = functools.cache(partial(_whole, builder, size=size, report=report))
        ids = lambda split: records(split).ids
        gather = partial(_gather, fetch=records)
    spans = {"train": splits.spans_of(builder, train, "data.train")}
    spans["test"] = splits.spans_of(builder, test, "data.test")
    if validation == SKLEARN_80_20:
        spans["train"], spans["validation"] = splits.sklearn_80_20(spans["train"], ids)
    elif validation != "none":
        spans["validation"] = splits.spans_of(builder, validation, "data.validation")
    splits.check_disjoint(spans)
    gathered = {role: gather(span) for role, span in spans.items()}
    return Dataset(
        name=name,
        classes=tfds_reader.class_names(builder),
        train=gathered["train"],
        validation=gathered.get("validation"),
        test=gathered["test"],
    )


def directory(data_dir: str = "") -> Path:
    """Returns the TFDS directory: `data_dir`, else `TFDS_DATA_DIR`, else TFDS' own."""
    path = data_dir or os.environ.get("TFDS_DATA_DIR") or constants.DATA_DIR
    return Path(path).expanduser()


def find(
    name: str,
    *,
    data_dir: str = "",
    archive_dir: str = "",
    report: Callable[[str], None] = print,
) -> tfds.core.DatasetBuilder:
    """Finds (or prepares, for cifar10) a data set; returns its builder.

    Args and errors are those of `load`.
    """
    if name == "cifar10_sample":
        if not _versions(SAMPLE_DIR / name):
            raise RunError(
                f"{name} is not in {SAMPLE_DIR}: it comes with a checkout of the "
                "repository, not with an installed package"
            )
        return _open(SAMPLE_DIR / name)
    root = directory(data_dir)
    if not _versions(root / name) and name == "cifar10":
        cifar10.prepare(root, archive_dir=archive_dir or None, report=report)
    if not _versions(root / name):
        there = ", ".join(sorted(p.name for p in root.glob("*") if _versions(p)))
        raise ConfigError(
            f"data.name={name!r} is not in {root} (there: {there or 'none'}); prepare "
            f"it (with TensorFlow) by `tfds build {name} --file_format=array_record "
            f"--data_dir={root}`, or name another directory with --config.data.data_dir"
        )
    return _open(root / name)


def _versions(path: Path) -> list[Path]:
    """Returns the directories of prepared versions, oldest first."""
    prepared = [p.parent for p in path.glob("*/dataset_info.json")]
    number = lambda p: [int(n) for n in p.name.split(".") if n.isdigit()]
    return sorted(prepared, key=number)


def _open(path: Path) -> tfds.core.DatasetBuilder:
    """Returns the builder of the newest version below `path`."""
    try:
        builder = tfds.builder_from_directory(_versions(path)[-1])
    except Exception as error:
        raise RunError(f"{path} is not a readable TFDS data set: {error}") from error
    form = builder.info.file_format
    if form is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ConfigError(
            f"{builder.data_path} holds {form.value if form else 'unknown'} files, "
            "which need TensorFlow; prepare it with --file_format=array_record"
        )
    return builder


def _whole(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    size: int,
    report: Callable[[str], None],
) -> tfds_reader.Records:
    """Reads a whole split and checks its SHA-256 where that is known."""
    records = tfds_reader.read(builder, split, size=size, report=report)
    if builder.name in cifar10.SHA256:
        order = np.argsort(records.ids)
        images, labels = records.images, records.labels
        try:
            cifar10.verify(split, images, labels, order=order, name=builder.name)
        except RunError as error:
            raise RunError(
                f"{builder.data_path}: {error}; remove this directory and prepare the "
                "set again"
            ) from error
    return records


def _gather(spans: Spans, fetch: Callable[[str], tfds_reader.Records]) -> Split:
    """Copies the records of `spans` out of the whole splits."""
    records = [fetch(split) for split in spans]
    columns = []
    for key in Split._fields:
        wholes = [getattr(part, key) for part in records]
        pieces = [a[span] for a, span in zip(wholes, spans.values(), strict=True)]
        # Joined only where there are several: images are most of a run's memory.
        columns.append(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
    return Split(*columns)


def _point_to(spans: Spans, fetch: Callable[[str], tfds_reader.Reader]) -> Streamed:
    """Points to the records of `spans` on disk, in the same order as `_gather`."""
    readers = tuple(fetch(split) for split in spans)
    part = np.repeat(np.arange(len(spans)), [len(span) for span in spans.values()])
    return Streamed(readers, part, np.concatenate(list(spans.values())))
