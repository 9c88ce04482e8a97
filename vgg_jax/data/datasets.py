"""Data sets by name: where they are, how they are split, that they are whole."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vgg_jax.data import cifar10
from vgg_jax.data import tfds_reader as decode
from vgg_jax.data.streaming import Streamed
from vgg_jax.errors import ConfigError, RunError

SAMPLE_DIR = Path(__file__).resolve().parents[2] / "data"
BLOG_SEED, BLOG_SHARE = 42, 0.2  # train_test_split(test_size=0.2, random_state=42)


class Split(NamedTuple):
    """Images and labels in memory.

    Attributes:
        images: uint8 `[N, H, W, C]`.
        labels: int32 `[N]`.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def take(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of these examples."""
        return self.images[index], self.labels[index]

    def batches(
        self, indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`take` of each."""
        return map(self.take, indices)


class Dataset(NamedTuple):
    """A data set, split. `validation` is None where none is held out."""

    name: str
    classes: tuple[str, ...]
    train: Split | Streamed
    validation: Split | Streamed | None
    test: Split | Streamed


def load(
    name: str,
    *,
    data_dir: str = "",
    archive_dir: str = "",
    train: str = "train",
    validation: str = "blog",
    test: str = "test",
    stream: bool = False,
    size: int = 0,
    report: Callable[[str], None] = print,
) -> Dataset:
    """Finds (or prepares, for cifar10), reads, checks and splits a data set.

    Args:
        name: TFDS name (`cifar10`, `cifar100`, `imagenette/320px-v2`), or
            `cifar10_sample`, the real images that come with this repository.
        data_dir: TFDS directory; empty: `TFDS_DATA_DIR`, else TFDS' own default.
        archive_dir: directory that holds CIFAR-10's official archive, if prepared.
        train: TFDS split, sliced or not, counted in the order of the files.
        validation: "blog" for scikit-learn's `train_test_split(test_size=0.2,
            random_state=42)` of `train` in canonical order; "none"; or a TFDS split.
        test: TFDS split.
        stream: decode images when they are needed instead of keeping all of them in
            memory; sums are not checked then.
        size: size for images that vary in size.
        report: is told what takes long.

    Raises:
        ConfigError: no such data set or split; training and evaluation overlap.
        RunError: the data set is corrupt or can be found nowhere.
    """
    builder = find(name, data_dir=data_dir, archive_dir=archive_dir, report=report)
    if stream:
        fetch = functools.cache(partial(decode.Reader, builder, size=size))
        ids, gather = (lambda split: fetch(split).ids()), _point_to
    else:
        fetch = functools.cache(partial(_whole, builder, size=size, report=report))
        ids, gather = (lambda split: fetch(split).ids), _gather
    spans = {"train": _spans(builder, train, "data.train")}
    spans["test"] = _spans(builder, test, "data.test")
    if validation == "blog":
        spans["train"], spans["validation"] = _blog_split(
            spans["train"], functools.cache(ids)
        )
    elif validation != "none":
        spans["validation"] = _spans(builder, validation, "data.validation")
    _check_disjoint(spans)
    splits = {role: gather(span, fetch) for role, span in spans.items()}
    return Dataset(
        name=name,
        classes=tuple(builder.info.features[decode.feature_keys(builder)[1]].names),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
    )


def find(name, *, data_dir="", archive_dir="", report=print):
    """The prepared TFDS builder called `name`; see `load`."""
    if name == "cifar10_sample":
        if not _versions(SAMPLE_DIR / name):
            raise RunError(
                f"{name} is not in {SAMPLE_DIR}: it comes with a checkout of the "
                "repository, not with an installed package"
            )
        return _open(SAMPLE_DIR / name)
    root = Path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR
    )
    root = root.expanduser()
    if not _versions(root / name) and name == "cifar10":
        cifar10.prepare(root, archive_dir=archive_dir or None, report=report)
    if not _versions(root / name):
        there = sorted(p.name for p in root.glob("*") if _versions(p))
        raise ConfigError(
            f"data.name={name!r} is not in {root} (there: {', '.join(there) or 'none'})"
            f"; prepare it (with TensorFlow) by `tfds build {name} "
            f"--file_format=array_record --data_dir={root}`, or name another directory "
            "with --config.data.data_dir"
        )
    return _open(root / name)


def _versions(path):
    """Directories of prepared versions, oldest first."""
    found = [p.parent for p in path.glob("*/dataset_info.json")]
    number = lambda p: [int(n) for n in p.name.split(".") if n.isdigit()]  # noqa: E731
    return sorted(found, key=number)


def _open(path):
    try:
        builder = tfds.builder_from_directory(_versions(path)[-1])
    except Exception as error:
        raise RunError(f"{path} is not a readable TFDS data set: {error}") from error
    form = builder.info.file_format
    if form is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ConfigError(
            f"{builder.data_path} holds {form.value} files, which need TensorFlow; "
            "prepare it with --file_format=array_record"
        )
    return builder


def _whole(builder, split, *, size, report):
    """The records of a whole split, their sums checked where they are known."""
    records = decode.read(builder, split, size=size, report=report)
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


def _spans(builder, spec, field) -> dict[str, np.ndarray]:
    """Record numbers of a TFDS split, by the name of the whole split."""
    try:
        parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(
            builder.info.splits
        )
    except Exception as error:
        known = ", ".join(builder.info.splits)
        raise ConfigError(
            f"{field}={spec!r} is not a split of {builder.name} ({error}); it has: "
            f"{known}; slices look like 'train[:90%]'"
        ) from error
    spans: dict[str, np.ndarray] = {}
    for part in parts:
        whole = np.arange(builder.info.splits[part.splitname].num_examples)
        span = whole[part.from_ : part.to]
        spans[part.splitname] = np.append(spans.get(part.splitname, span[:0]), span)
    if not sum(map(len, spans.values())):
        raise ConfigError(f"{field}={spec!r} of {builder.name} is empty")
    return spans


def _blog_split(spans, ids_of):
    """scikit-learn's shuffle split of `spans`, in canonical order."""
    places = [(split, i) for split, span in spans.items() for i in span]
    ids = [ids_of(split)[i] if len(ids_of(split)) else b"" for split, i in places]
    canonical = np.argsort(np.array(ids), kind="stable")
    order = np.random.RandomState(BLOG_SEED).permutation(len(places))
    held_out = int(np.ceil(BLOG_SHARE * len(places)))

    def pick(chosen):
        picked: dict[str, list[int]] = {}
        for k in canonical[chosen]:
            split, i = places[k]
            picked.setdefault(split, []).append(i)
        return {split: np.array(span) for split, span in picked.items()}

    return pick(order[held_out:]), pick(order[:held_out])


def _check_disjoint(spans):
    roles = list(spans)
    for a in roles:
        for b in roles[roles.index(a) + 1 :]:
            for split in spans[a].keys() & spans[b].keys():
                common = np.intersect1d(spans[a][split], spans[b][split])
                if len(common):
                    raise ConfigError(
                        f"data.{a} and data.{b} share {len(common):,} images of "
                        f"{split!r}: a score on seen images says nothing"
                    )


def _gather(spans, fetch):
    parts = [fetch(split) for split in spans]
    joined = []
    for key in Split._fields:
        own = [getattr(part, key) for part in parts]
        taken = [a[span] for a, span in zip(own, spans.values(), strict=True)]
        # Copied only where there are several: images are most of a run's memory.
        joined.append(taken[0] if len(taken) == 1 else np.concatenate(taken))
    return Split(*joined)


def _point_to(spans, fetch):
    readers = tuple(fetch(split) for split in spans)
    part = np.repeat(np.arange(len(spans)), [len(span) for span in spans.values()])
    return Streamed(readers, part, np.concatenate(list(spans.values())))
