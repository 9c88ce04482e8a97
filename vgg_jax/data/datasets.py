"""Data sets by name: where they are, how they are split, that they are whole."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vgg_jax.data import in_memory, splits, tfds_features, tfds_reader
from vgg_jax.data.in_memory import Split
from vgg_jax.data.picture_folder import PREFIX
from vgg_jax.data.splits import SKLEARN_80_20, Spans
from vgg_jax.data.stored import find, opened
from vgg_jax.data.streaming import AT_ONCE, Reader, Streamed
from vgg_jax.errors import ConfigError
from vgg_jax.fields import check, field, in_range


class Dataset(NamedTuple):
    """A data set, split.

    Attributes:
        name: as given to `load`.
        classes: names of the classes, in the order of their labels.
        train, validation, test: the splits; `validation` is None where none is held
            out.
        digests: SHA-256 of which examples a split has (`splits.digest`), by its name.
        damaged: pictures that could not be decoded, by name, and why, as far as they
            were met; filled while streamed splits are read.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | Streamed
    validation: Split | Streamed | None
    test: Split | Streamed
    digests: Mapping[str, str] = MappingProxyType({})
    damaged: Mapping[str, str] = MappingProxyType({})


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
    workers: int = field(0, in_range(0))

    def __post_init__(self) -> None:
        check(self)

    @property
    def streams(self) -> bool:
        """Whether images are decoded as they are needed."""
        return self.stream or self.name.startswith(PREFIX)


def load(
    name: str,
    *,
    data_dir: str = "",
    archive_dir: str = "",
    train: str = "train",
    validation: str = SKLEARN_80_20,
    test: str = "test",
    stream: bool = False,
    workers: int = 0,
    size: int = 0,
    scales: Sequence[int] = (),
    report: Callable[[str], None] = print,
) -> Dataset:
    """Finds (or prepares, CIFAR-10 and CIFAR-100), reads, checks and splits a set.

    Args:
        name: TFDS name (`cifar10`, `cifar100`, `imagenette/320px-v2`), or
            `cifar10_sample`, the real images that come with this repository, or
            `folder:photos`, a folder of pictures (`picture_folder`).
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
            them in memory; their SHA-256 is not checked then. Of a folder, always.
        workers: processes that decode streamed images; 0: threads of this process.
        size: height and width in pixels that the network sees, or 0. Images of varying
            size, larger ones and those that are not square are scaled and
            centre-cropped to it; smaller square ones are left as they are.
        scales: smaller side of a picture in pixels, of which streamed training sees
            random crops of `size` (`framing.RandomCrop`) and evaluation the centre of
            the middle scale; empty: both see centres of the scale `size`. Images in
            memory stay as they are stored, for the device to do so.
        report: receives a line when something takes long.

    Raises:
        ConfigError: there is no such data set or split, or two of the splits overlap.
        RunError: the data set is corrupt, or none of its sources works.

    >>> dataset = load("cifar10_sample", train="train[:90%]", stream=True)
    >>> len(dataset.train), len(dataset.validation), dataset.train.image_shape
    (2880, 720, (32, 32, 3))
    """
    where = {"data_dir": data_dir, "archive_dir": archive_dir, "report": report}
    stored = opened(name, size, scales, **where)
    wanted = {"train": train, "test": test}
    if validation not in (SKLEARN_80_20, "none"):
        wanted["validation"] = validation
    spans = {
        role: splits.spans_of(name, stored.counts, spec, f"data.{role}")
        for role, spec in wanted.items()
    }
    ids, damaged = functools.cache(stored.ids), {}
    if stream or stored.builder is None:
        more = {"damaged": damaged, "scales": scales, "workers": workers}
        gather = partial(_point_to, fetch=functools.cache(stored.reader), **more)
        if stored.builder:
            in_memory.check_fits(stored.builder, AT_ONCE, size, whole=False)
    else:
        records = _records(stored.builder, spans, size, scales, report)
        ids = lambda split: records(split).ids
        gather = partial(in_memory.gather, fetch=records)
    if validation == SKLEARN_80_20:
        spans["train"], spans["validation"] = splits.sklearn_80_20(spans["train"], ids)
    splits.check_disjoint(spans)
    gathered = {role: gather(span) for role, span in spans.items()}
    return Dataset(
        name=name,
        classes=stored.classes,
        train=gathered["train"],
        validation=gathered.get("validation"),
        test=gathered["test"],
        digests={r: splits.digest(stored.counts, s, ids) for r, s in spans.items()},
        damaged=damaged,
    )


def _records(
    builder: tfds.core.DatasetBuilder,
    spans: Mapping[str, Spans],
    size: int,
    scales: Sequence[int],
    report: Callable[[str], None],
) -> Callable[[str], tfds_reader.Records]:
    """Returns what reads whole splits into memory, once they are known to fit."""
    stored = tfds_features.shape_of(builder, size=10**9) if scales else None
    if stored and stored != tfds_features.shape_of(builder, size):
        raise ConfigError(
            f"augment.scales={tuple(scales)}: the images of {builder.name} are not all "
            "one square of few pixels, and are cut as they are read: set "
            "data.stream=True"
        )
    in_memory.check_fits(builder, _held(builder, spans), size, whole=True)
    whole = partial(in_memory.whole, builder, size=size, report=report)
    return functools.cache(whole)


def one_split(
    name: str,
    split: str = "",
    *,
    data_dir: str = "",
    size: int = 0,
    report: Callable[[str], None] = print,
) -> tuple[Split, tuple[str, ...], str]:
    """Returns the images of one TFDS split in memory.

    Args:
        name: as for `load`, but for folders; so are the others, and the errors.
        split: TFDS split; empty: "test", or the only one there is.
        data_dir: as for `load`.
        size: as for `load`.
        report: as for `load`.

    Returns:
        The split; the names of all classes; and what the images are called.

    >>> split, classes, title = one_split("cifar10_sample", "test[:10]")
    >>> split.images.shape, classes[3], title
    ((10, 32, 32, 3), 'cat', 'test[:10] of cifar10_sample')
    """
    builder = find(name, data_dir=data_dir, report=report)
    split, title = _tested(name, split, [*builder.info.splits])
    spans = splits.spans_of(name, builder.info.splits, split, "split")
    in_memory.check_fits(builder, _held(builder, {split: spans}), size, whole=False)
    records = functools.cache(
        partial(in_memory.whole, builder, size=size, report=report)
    )
    classes = tfds_features.class_names(builder)
    return in_memory.gather(spans, records), classes, title


def whole_pictures(
    name: str, split: str = "", *, data_dir: str = ""
) -> tuple[Streamed, tuple[str, ...], str]:
    """Returns pictures that are decoded whole as they are asked for.

    Args:
        name: as for `load`.
        split: TFDS split; empty: "test", or the only one there is.
        data_dir: as for `load`.

    Returns:
        The split, of which `picture(number)` is what to ask; the names of the classes;
        and what the pictures are called: the split is named where there are others.

    Raises:
        ConfigError, RunError: as `load`; or there are several splits and no test.

    >>> pictures, classes, title = whole_pictures("cifar10_sample")
    >>> pictures.picture(0)[0].shape, len(pictures), title
    ((32, 32, 3), 1000, 'test of cifar10_sample')
    """
    stored = opened(name, 1, (1,), data_dir=data_dir, report=print)
    split, title = _tested(name, split, [*stored.counts])
    spans = splits.spans_of(name, stored.counts, split, "split")
    found = _point_to(spans, functools.cache(stored.reader), damaged={})
    return found, stored.classes, title


def _tested(name: str, split: str, known: Sequence[str]) -> tuple[str, str]:
    """Returns the split that is meant, and what its images are called."""
    if not split and "test" not in known and len(known) > 1:
        raise ConfigError(
            f"{name} has no split 'test': choose one of its own, {', '.join(known)}"
        )
    split = split or ("test" if "test" in known else known[0])
    is_all = [split] == [*known]
    return split, name if is_all else f"{split} of {name}"


def _held(builder: tfds.core.DatasetBuilder, spans: Mapping[str, Spans]) -> int:
    """Returns the number of images in memory at once, at least."""
    wholes = {split for span in spans.values() for split in span}
    read = sum(builder.info.splits[split].num_examples for split in wholes)
    return read + sum(len(part) for span in spans.values() for part in span.values())


def _point_to(spans: Spans, fetch: Callable[[str], Reader], **how: Any) -> Streamed:
    """Points to the records of `spans` on disk, in the order of `in_memory.gather`."""
    readers = tuple(fetch(split) for split in spans)
    part = np.repeat(np.arange(len(spans)), [len(span) for span in spans.values()])
    return Streamed(readers, part, np.concatenate(list(spans.values())), **how)
