"""Turns folders of your own pictures into a TFDS data set, without TensorFlow.

Pictures lie in `photos/<class>/`, or in `photos/<split>/<class>/` where one split is
called train (say train and test). They may vary in size. TFDS shuffles them, so that
slices like `train[:80%]` hold every class.
"""

import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageOps
import tensorflow_datasets as tfds

from vgg_jax.data.cifar10 import SHA256, write
from vgg_jax.errors import ConfigError, RunError

_VERSION = "1.0.0"
_STORED_AS_IS = ("JPEG", "PNG")  # formats; others become PNG
_ORIENTATION = 0x0112  # EXIF tag

Splits = Mapping[str, Mapping[str, Sequence[Path]]]  # split -> class -> files


class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the files as a data set with features id, image (RGB) and label.

    Args:
        splits: the files, as `find` returns them.
        size: `(height, width)` in pixels if all pictures share it, else None.
        **kwargs: arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    VERSION = tfds.core.Version(_VERSION)

    def __init__(
        self, splits: Splits, size: tuple[int, int] | None, **kwargs: Any
    ) -> None:
        self._splits, self._size = splits, size or (None, None)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        classes = list(self._splits["train"])
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(*self._size, 3)),
            "label": tfds.features.ClassLabel(names=classes),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Folders of pictures, by `vgg folder`.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for label, files in self._splits[split].items():
            for file in files:
                name = f"{split}/{label}/{file.name}"
                yield name, {"id": name, "image": _encoded(file), "label": label}


def find(images: Path) -> Splits:
    """Returns the files below a directory by split and class, without hidden ones.

    Args:
        images: holds one directory per class, or one per split with one per class. A
            directory of classes alone is the split "train".

    Raises:
        ConfigError: there is no such directory, it has fewer than two classes, a class
            is empty or has directories of its own, or a split has a class that train
            has not.
    """
    if not images.is_dir():
        raise ConfigError(f"--images={images} is not a directory")
    names = [path.name for path in _below(images)]
    roots = {n: images / n for n in names} if "train" in names else {"train": images}
    splits = {
        split: {path.name: _below(path, files=True) for path in _below(root)}
        for split, root in roots.items()
    }
    if (count := len(splits["train"])) < 2:
        raise ConfigError(
            f"--images={images} has {count} class folders, two or more are "
            "needed: <images>/<class>/ or <images>/<split>/<class>/, one split 'train'"
        )
    _check(splits, roots)
    return splits


def _check(splits: Splits, roots: Mapping[str, Path]) -> None:
    train = splits["train"]
    for split, classes in splits.items():
        if unknown := set(classes) - set(train):
            raise ConfigError(
                f"{roots[split]} has classes that train has not: "
                f"{', '.join(sorted(unknown))}"
            )
        for label, files in classes.items():
            inner = _below(roots[split] / label)
            if inner or not files:
                raise ConfigError(
                    f"{roots[split] / label} holds "
                    f"{f'a directory, {inner[0].name}' if inner else 'no file'}: lay "
                    "pictures out as <images>/<class>/ or <images>/<split>/<class>/, "
                    "one split 'train'"
                )


def _below(directory: Path, files: bool = False) -> list[Path]:
    """Returns the directories, or the files, in a directory, sorted by name."""
    paths = [p for p in sorted(directory.iterdir()) if not p.name.startswith(".")]
    return [p for p in paths if p.is_file() == files]


def _encoded(file: Path) -> io.BytesIO:
    """Returns the file's own bytes if TFDS can store them, else an upright RGB PNG."""
    with PIL.Image.open(file) as picture:
        turned = picture.getexif().get(_ORIENTATION, 1) != 1
        storable = picture.format in _STORED_AS_IS and picture.mode in ("L", "RGB")
        if storable and not turned:
            return io.BytesIO(file.read_bytes())
        png = io.BytesIO()
        PIL.ImageOps.exif_transpose(picture).convert("RGB").save(png, "png")
    png.seek(0)
    return png


def _common_size(splits: Splits) -> tuple[int, int] | None:
    """Returns `(height, width)` of all pictures, or None if they vary.

    Decodes every picture, so that a damaged one is found before anything is written.

    Raises:
        RunError: a file is not a picture, or is damaged.
    """
    sizes = set()
    for classes in splits.values():
        for file in (f for files in classes.values() for f in files):
            try:
                with PIL.Image.open(_encoded(file)) as picture:
                    picture.load()
                    sizes.add(picture.size)
            except Exception as error:
                raise RunError(
                    f"{file} is not a readable picture ({error}): mend or remove it"
                ) from error
    if len(sizes) != 1:
        return None
    width, height = sizes.pop()
    return height, width


def prepare(images: Path, name: str, data_dir: Path) -> Path:
    """Writes the data set `name` into `data_dir`.

    It appears by one rename, when it is whole; an existing one is not overwritten.

    Args:
        images: directory of pictures, laid out as `find` says.
        name: lower-case letters, digits and `_`, beginning with a letter.
        data_dir: TFDS data directory; created if needed.

    Returns:
        The path of the data set, `<data_dir>/<name>/1.0.0`.

    Raises:
        ConfigError: `images` is not laid out so, or `name` is taken or malformed.
        RunError: a picture is damaged, or `data_dir` cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"--name={name!r}: lower-case letters, digits and _, a letter first"
        )
    target = data_dir / name / _VERSION
    if target.parent.exists() or name in SHA256:
        raise ConfigError(
            f"--name={name} is taken in {data_dir}: give another --name or --data_dir"
        )
    splits = find(images)
    size = _common_size(splits)
    builder = type(name, (Pictures,), {"name": name}, skip_registration=True)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=data_dir) as part:
            write(builder(splits, size, data_dir=part), target)
    except (OSError, RuntimeError) as error:  # array_record's when the disk is full
        raise RunError(
            f"--data_dir={data_dir} cannot be written ({error}): give another"
        ) from error
    return target
