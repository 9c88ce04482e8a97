"""Turns folders of your own pictures into a TFDS data set, without TensorFlow.

Pictures lie in `photos/<class>/`, or in `photos/<split>/<class>/` where one split is
called train (say train and test). They may vary in size. TFDS shuffles them, so that
slices like `train[:80%]` hold every class.
"""

import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageOps
import tensorflow_datasets as tfds

from vgg_jax.data import pictures
from vgg_jax.data.cifar10 import write
from vgg_jax.data.cifar10_sums import SHA256
from vgg_jax.data.folder_layout import Splits, files_of, find
from vgg_jax.errors import ConfigError, RunError

_VERSION = "1.0.0"
_STORED_AS_IS = ("JPEG", "PNG")  # formats; others become PNG
_ORIENTATION = 0x0112  # EXIF tag
_SHOWN = 20  # bad files that are named


class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the files as a data set with features id, image (RGB) and label.

    Args:
        splits: the files, as `find` returns them.
        size: `(height, width)` in pixels if all pictures share it, else `(None, None)`.
        **kwargs: arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    VERSION = tfds.core.Version(_VERSION)

    def __init__(
        self, splits: Splits, size: tuple[int | None, int | None], **kwargs: Any
    ) -> None:
        self._splits, self._size = splits, size
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
                name = name.encode(errors="backslashreplace").decode()
                yield name, {"id": name, "image": _encoded(file), "label": label}


def _encoded(file: Path) -> io.BytesIO:
    """Returns the file's own bytes if TFDS can store them, else an upright RGB PNG.

    Raises:
        ValueError: the picture has no conversion to RGB.
    """
    with PIL.Image.open(file) as picture:
        turned = picture.getexif().get(_ORIENTATION, 1) != 1
        storable = picture.format in _STORED_AS_IS and picture.mode in ("L", "RGB")
        if storable and not turned and not pictures.is_transparent(picture):
            return io.BytesIO(file.read_bytes())
        png = io.BytesIO()
        pictures.rgb(PIL.ImageOps.exif_transpose(picture)).save(png, "png")
    png.seek(0)
    return png


def _inspect(splits: Splits) -> tuple[set[tuple[int, int]], dict[Path, str]]:
    """Decodes every picture, before anything is written.

    Returns:
        The sizes that occur, `(width, height)`; and why each bad file is none.
    """
    sizes, bad = set(), {}
    for file in (
        f for classes in splits.values() for fs in classes.values() for f in fs
    ):
        try:
            with PIL.Image.open(_encoded(file)) as picture:
                picture.load()
                sizes.add(picture.size)
        except PIL.UnidentifiedImageError:
            bad[file] = "it has no format that Pillow reads"
        except MemoryError:
            bad[file] = "it takes more memory than there is"
        except Exception as error:
            bad[file] = str(error)
    return sizes, bad


def _without(splits: Splits, bad: Mapping[Path, str], images: Path) -> Splits:
    """Returns the splits without the bad files.

    Raises:
        ConfigError: a class is empty without them.
    """
    kept = {
        split: {label: [f for f in fs if f not in bad] for label, fs in classes.items()}
        for split, classes in splits.items()
    }
    for split, classes in kept.items():
        for label, files in classes.items():
            if not files:
                raise ConfigError(
                    f"--images={images}: no file of class {label} in {split} is a "
                    "readable picture"
                )
    return kept


def _told(bad: Mapping[Path, str], splits: Splits) -> str:
    """Returns the first bad files with the reasons, a line each."""
    lines = [f"  {file}: {reason}" for file, reason in list(bad.items())[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN:,} more")
    total = len(files_of(splits))
    first = f"{len(bad):,} of {total:,} files are not readable pictures:"
    return "\n".join([first, *lines])


def prepare(
    images: Path,
    name: str,
    data_dir: Path,
    *,
    skip_bad: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Writes the data set `name` into `data_dir`.

    It appears by one rename, when it is whole; an existing one is not overwritten.

    Args:
        images: directory of pictures, laid out as `find` says.
        name: at most 64 lower-case letters, digits and `_`, beginning with a letter.
        data_dir: TFDS data directory; created if needed.
        skip_bad: whether to leave out files that are not readable pictures.
        report: receives what was left out.

    Returns:
        The path of the data set, `<data_dir>/<name>/1.0.0`.

    Raises:
        ConfigError: `images` is not laid out so, or `name` is taken or malformed.
        RunError: some pictures are damaged, or `data_dir` cannot be written.
    """
    target = _target(name, data_dir)
    pictures.accept_large()
    splits = find(images)
    sizes, bad = _inspect(splits)
    if bad and not skip_bad:
        raise RunError(
            f"{_told(bad, splits)}\nmend or remove them, or leave them out with "
            "--skip_bad"
        )
    if bad:
        report(f"left out: {_told(bad, splits)}")
        splits = _without(splits, bad, images)
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    builder = type(name, (Pictures,), {"name": name}, skip_registration=True)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=data_dir) as part:
            write(builder(splits, (height, width), data_dir=part), target)
    except (OSError, RuntimeError) as error:  # array_record's when the disk is full
        raise RunError(
            f"--data_dir={data_dir} cannot be written ({error}): give another"
        ) from error
    return target


def _target(name: str, data_dir: Path) -> Path:
    """Returns the directory of a data set that there is not yet."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
        shown = name if len(name) < 80 else f"{name[:20]}... ({len(name)} letters)"
        raise ConfigError(
            f"--name={shown!r}: at most 64 lower-case letters, digits and _, a letter "
            "first"
        )
    target = data_dir / name / _VERSION
    if target.parent.exists() or name in SHA256:
        raise ConfigError(
            f"--name={name} is taken in {data_dir}: give another --name or --data_dir"
        )
    return target
