"""Data sets by name: where they are, how they are split, that they are whole."""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants

from vgg_jax.data import cifar10, in_memory, splits, tfds_reader
from vgg_jax.data.in_memory import Split
from vgg_jax.data.splits import SKLEARN_80_20, Spans
from vgg_jax.data.streaming import AT_ONCE, Streamed
from vgg_jax.errors import ConfigError, RunError

SAMPLE_DIR = Path(__file__).resolve().parents[2] / "data"


# As TFDS has them: a name, a config, a version.
_NAME = re.compile(
    r"(?P<path>[a-z]\w*(/\w[\w+.-]*)?)(:(?P<version>\d+\.\d+\.\d+))?", re.ASCII
)


class Dataset(NamedTuple):
    """A data set, split.

    Attributes:
        name: as given to `load`.
        classes: names of the classes, in the order of their labels.
        train, validation, test: the splits; `validation` is None where none is held
            out.
        digests: SHA-256 of which examples a split has (`splits.digest`), by its name.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | Streamed
    validation: Split | Streamed | None
    test: Split | Streamed
    digests: Mapping[str, str] = MappingProxyType({})


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
    """Finds (or prepares, CIFAR-10 and CIFAR-100), reads, checks and splits a set.

    Args:
        name: TFDS name (`cifar10`, `cifar100`, `imagenette/320px-v2`), or
            `cifar10_sample`, the real images that come with this repository.
        data_dir: TFDS directory, which must exist; if empty, `TFDS_DATA_DIR`, else the
            default of TFDS.
        archive_dir: directory with the official archive of CIFAR-10 or CIFAR-100, from
            which it is prepared where it is not yet; if empty, from the network.
        train: TFDS split, sliced or not, counted in the order of the files.
        validation: "sklearn_80_20" for scikit-learn's `train_test_split(test_size=0.2,
            random_state=42)` of `train` in canonical order;
            "none"; or a TFDS split.
        test: TFDS split.
        stream: whether to decode images when they are needed instead of keeping all of
            them in memory; their SHA-256 is not checked then.
        size: height and width in pixels that the network sees, or 0. Images of varying
            size, larger ones and those that are not square are scaled and
            centre-cropped to it; smaller square ones are left as they are.
        report: receives a line when something takes long.

    Raises:
        ConfigError: there is no such data set or split, or two of the splits overlap.
        RunError: the data set is corrupt, or none of its sources works.

    >>> dataset = load("cifar10_sample", train="train[:90%]", stream=True)
    >>> len(dataset.train), len(dataset.validation), dataset.train.image_shape
    (2880, 720, (32, 32, 3))
    """
    builder = find(name, data_dir=data_dir, archive_dir=archive_dir, report=report)
    spans = {
        "train": splits.spans_of(builder, train, "data.train"),
        "test": splits.spans_of(builder, test, "data.test"),
    }
    if validation not in (SKLEARN_80_20, "none"):
        spans["validation"] = splits.spans_of(builder, validation, "data.validation")
    in_memory.check_fits(builder, _held(builder, spans, stream), size, whole=not stream)
    if stream:
        reader = functools.cache(partial(tfds_reader.Reader, builder, size=size))
        ids = functools.cache(partial(tfds_reader.ids, builder))
        gather = partial(_point_to, fetch=reader)
    else:
        whole = partial(in_memory.whole, builder, size=size, report=report)
        records = functools.cache(whole)
        ids = lambda split: records(split).ids
        gather = partial(in_memory.gather, fetch=records)
    if validation == SKLEARN_80_20:
        spans["train"], spans["validation"] = splits.sklearn_80_20(spans["train"], ids)
    splits.check_disjoint(spans)
    gathered = {role: gather(span) for role, span in spans.items()}
    return Dataset(
        name=name,
        classes=tfds_reader.class_names(builder),
        train=gathered["train"],
        validation=gathered.get("validation"),
        test=gathered["test"],
        digests={r: splits.digest(builder, s, ids) for r, s in spans.items()},
    )


def one_split(
    name: str,
    split: str,
    *,
    data_dir: str = "",
    size: int = 0,
    report: Callable[[str], None] = print,
) -> tuple[Split, tuple[str, ...]]:
    """Returns the images of one TFDS split in memory, and the names of all classes.

    Args and errors are those of `load`.

    >>> split, classes = one_split("cifar10_sample", "test[:10]")
    >>> split.images.shape, classes[3]
    ((10, 32, 32, 3), 'cat')
    """
    builder = find(name, data_dir=data_dir, report=report)
    spans = splits.spans_of(builder, split, "split")
    held = _held(builder, {split: spans}, stream=False)
    in_memory.check_fits(builder, held, size, whole=False)
    records = functools.cache(
        partial(in_memory.whole, builder, size=size, report=report)
    )
    return in_memory.gather(spans, records), tfds_reader.class_names(builder)


def _held(
    builder: tfds.core.DatasetBuilder, spans: Mapping[str, Spans], stream: bool
) -> int:
    """Returns the number of images in memory at once, at least."""
    if stream:
        return AT_ONCE
    wholes = {split for span in spans.values() for split in span}
    read = sum(builder.info.splits[split].num_examples for split in wholes)
    return read + sum(len(part) for span in spans.values() for part in span.values())


def directory(data_dir: str = "") -> Path:
    """Returns the TFDS directory: `data_dir`, else `TFDS_DATA_DIR`, else TFDS' own.

    Raises:
        ConfigError: TFDS' own is in the home directory, and there is none.
    """
    path = data_dir or os.environ.get("TFDS_DATA_DIR") or constants.DATA_DIR
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            "there is no home directory to look for data sets in: set TFDS_DATA_DIR, "
            "or HOME"
        ) from error


def find(
    name: str,
    *,
    data_dir: str = "",
    archive_dir: str = "",
    report: Callable[[str], None] = print,
) -> tfds.core.DatasetBuilder:
    """Finds (or prepares, for CIFAR-10 and CIFAR-100) a data set; returns its builder.

    Args and errors are those of `load`.
    """
    if not (match := _NAME.fullmatch(name)):
        raise ConfigError(
            f"data.name={name!r} is no name of a TFDS data set: those look like "
            "cifar10, imagenette/320px-v2 or cifar10:3.0.2"
        )
    if data_dir and not Path(data_dir).expanduser().is_dir():
        raise ConfigError(
            f"data.data_dir={data_dir} does not exist: make it, or correct it"
        )
    path, version = match["path"], match["version"]
    if path == "cifar10_sample":
        if not _versions(SAMPLE_DIR / path, version):
            raise RunError(
                f"{name} is not in {SAMPLE_DIR}: it comes with a checkout of the "
                "repository, not with an installed package"
            )
        return _open(SAMPLE_DIR / path, version)
    root = directory(data_dir)
    if not _versions(root / path) and path in cifar10.BUILDERS:
        archives = archive_dir or None
        cifar10.prepare(root, name=path, archive_dir=archives, report=report)
    if not _versions(root / path, version):
        there = ", ".join(sorted(p.name for p in root.glob("*") if _versions(p)))
        raise ConfigError(
            f"data.name={name!r} is not in {root} (there: {there or 'none'}); prepare "
            f"it (with TensorFlow) by `tfds build {name} --file_format=array_record "
            f"--data_dir={root}`, or name another directory with --config.data.data_dir"
        )
    return _open(root / path, version)


def _versions(path: Path, version: str | None = None) -> list[Path]:
    """Returns the directories of prepared versions, or of this one, oldest first."""
    prepared = [p.parent for p in path.glob(f"{version or '*'}/dataset_info.json")]
    number = lambda p: [int(n) for n in p.name.split(".") if n.isdigit()]
    return sorted(prepared, key=number)


def _open(path: Path, version: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of this version below `path`, or of the newest."""
    try:
        builder = tfds.builder_from_directory(_versions(path, version)[-1])
    except Exception as error:
        raise RunError(f"{path} is not a readable TFDS data set: {error}") from error
    form = builder.info.file_format
    if form is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ConfigError(
            f"{builder.data_path} holds {form.value if form else 'unknown'} files, "
            "which need TensorFlow; prepare it with --file_format=array_record"
        )
    return builder


def _point_to(spans: Spans, fetch: Callable[[str], tfds_reader.Reader]) -> Streamed:
    """Points to the records of `spans` on disk, in the same order as `_gather`."""
    readers = tuple(fetch(split) for split in spans)
    part = np.repeat(np.arange(len(spans)), [len(span) for span in spans.values()])
    return Streamed(readers, part, np.concatenate(list(spans.values())))
