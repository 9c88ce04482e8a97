"""Where a data set is on disk, and how it is kept there: TFDS, or a folder."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants

from vgg_jax.data import cifar10, cifar10_builders, tfds_features, tfds_reader
from vgg_jax.data.framing import tested_at
from vgg_jax.data.picture_folder import PREFIX, PictureFolder
from vgg_jax.data.streaming import Reader
from vgg_jax.errors import ConfigError, RunError

SAMPLE_DIR = Path(__file__).resolve().parents[2] / "data"


# As TFDS has them: a name, a config, a version.
_NAME = re.compile(
    r"(?P<path>[a-z]\w*(/\w[\w+.-]*)?)(:(?P<version>\d+\.\d+\.\d+))?", re.ASCII
)


class Stored(NamedTuple):
    """A data set on disk, however it is kept there.

    Attributes:
        counts: whole splits, each with its `num_examples`.
        classes: their names.
        ids: from a split to the canonical names of its examples.
        reader: from a split to what decodes it.
        builder: of TFDS, where its records can be held in memory.
    """

    counts: Mapping[str, Any]
    classes: tuple[str, ...]
    ids: Callable[[str], np.ndarray]
    reader: Callable[[str], Reader]
    builder: tfds.core.DatasetBuilder | None


def opened(
    name: str,
    size: int,
    scales: Sequence[int],
    *,
    data_dir: str,
    archive_dir: str = "",
    report: Callable[[str], None],
) -> Stored:
    """Finds a data set of any kind, prepared or not.

    Args and errors are those of `datasets.load`.
    """
    shown = {"size": size, "scale": tested_at(scales) if scales else 0}
    if name.startswith(PREFIX):
        if not size:
            raise ConfigError(
                f"data.name={name!r} has pictures of any size: set augment.resize to "
                "the size to train at"
            )
        if not (path := name.removeprefix(PREFIX)):
            raise ConfigError(f"data.name={name!r} names no folder: folder:photos, say")
        folder = PictureFolder(Path(path).expanduser(), report)
        reader = partial(folder.reader, **shown)
        return Stored(folder.counts, folder.classes, folder.ids, reader, None)
    builder = find(name, data_dir=data_dir, archive_dir=archive_dir, report=report)
    return Stored(
        counts=builder.info.splits,
        classes=tfds_features.class_names(builder),
        ids=partial(tfds_reader.ids, builder),
        reader=partial(tfds_reader.Reader, builder, **shown),
        builder=builder,
    )


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

    Args and errors are those of `datasets.load`.
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
    if not _versions(root / path) and path in cifar10_builders.BUILDERS:
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
