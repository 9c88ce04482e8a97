"""Which pictures a folder holds, by split and class."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vgg_jax.data.tfds_features import check_names
from vgg_jax.errors import ConfigError

Splits = Mapping[str, Mapping[str, Sequence[Path]]]  # split -> class -> files


def find(images: Path, field: str = "--images") -> Splits:
    """Returns the files below a directory by split and class, without hidden ones.

    Args:
        images: holds one directory per class, or one per split with one per class. A
            directory of classes alone is the split "train".
        field: what is set to it, for the messages.

    Raises:
        ConfigError: there is no such directory, it has fewer than two classes, a class
            is empty, has directories of its own or a name that is no line of text, or a
            split has no class, or one that train has not.
    """
    if not images.is_dir():
        raise ConfigError(f"{field}={images} is not a directory")
    names = [path.name for path in _below(images)]
    roots = {n: images / n for n in names} if "train" in names else {"train": images}
    splits = {
        split: {path.name: _below(path, files=True) for path in _below(root)}
        for split, root in roots.items()
    }
    if (count := len(splits["train"])) < 2:
        raise ConfigError(
            f"{field}={images} has {count} class folders, two or more are "
            "needed: <images>/<class>/ or <images>/<split>/<class>/, one split 'train'"
        )
    _check(splits, roots)
    return splits


def _check(splits: Splits, roots: Mapping[str, Path]) -> None:
    train = splits["train"]
    check_names(train)
    for split, classes in splits.items():
        if not classes:
            raise ConfigError(
                f"{roots[split]} has no class folders, as train has: sort its pictures "
                "into them, or move it out"
            )
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
    return [p for p in paths if p.is_dir() != files]


def files_of(splits: Splits) -> list[Path]:
    """Returns all files, in order."""
    return [
        file
        for classes in splits.values()
        for files in classes.values()
        for file in files
    ]
