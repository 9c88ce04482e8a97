"""Files that appear whole or not at all, and stay; and the directory of the cache."""

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path

from vgg_jax.errors import ConfigError


def cache_directory() -> Path:
    """Returns `vgg_jax` in the user's cache directory.

    That is `XDG_CACHE_HOME`, else `~/.cache`.

    Raises:
        ConfigError: there is no home directory.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return path.expanduser() / "vgg_jax"
    except RuntimeError as error:
        raise ConfigError(
            "there is no home directory for the cache: set XDG_CACHE_HOME, or HOME"
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces a file by one rename, so that a crash leaves the old or the new one.

    It is on the disk when this returns: a power cut leaves the new one. A failure
    leaves the old one and nothing else.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            _sync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync(path.parent)


def check_target(path: Path, suffix: str, overwrite: bool) -> None:
    """Checks that a file can be written, before the work that its content takes.

    Args:
        path: of the file.
        suffix: that its name must have.
        overwrite: whether a file that is there may be replaced.

    Raises:
        ConfigError: it cannot.
    """
    if not path.name.endswith(suffix):
        raise ConfigError(f"path={str(path)!r} must end in {suffix}")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no directory {path.parent}: make it first")
    if path.exists() and not overwrite:
        raise ConfigError(
            f"{path} is there already: overwrite=True (--overwrite) replaces it"
        )


def sync(path: Path) -> None:
    """Returns when the disk holds a file's content, or a directory's entries."""
    number = os.open(path, os.O_RDONLY)
    try:
        _sync(number)
    except OSError as error:  # some network file systems do not sync directories
        if error.errno not in (errno.EINVAL, errno.EBADF) or not path.is_dir():
            raise
    finally:
        os.close(number)


def _sync(number: int) -> None:
    """Waits for the disk itself: on macOS `fsync` leaves the last part in its cache."""
    if full := getattr(fcntl, "F_FULLFSYNC", None):
        with contextlib.suppress(OSError):  # a file system that has none
            fcntl.fcntl(number, full)
            return
    os.fsync(number)


def sync_tree(directory: Path) -> None:
    """Returns when the disk holds everything in a directory, and its own entries."""
    for path in directory.rglob("*"):
        sync(path)
    sync(directory)


def set_aside(path: Path, damaged: Path) -> None:
    """Moves a file or directory that cannot be read out of the way.

    Args:
        path: what to move.
        damaged: directory on the same file system; created if missing.
    """
    path.rename(_place(path, damaged))
    sync(damaged)
    sync(path.parent)


def keep_copy(path: Path, damaged: Path) -> None:
    """Copies a file that is about to be replaced to the directory `damaged`."""
    copy = _place(path, damaged)
    shutil.copyfile(path, copy)
    sync(copy)
    sync(damaged)


def _place(path: Path, damaged: Path) -> Path:
    """Returns a path in `damaged` that is not taken: `name-0`, `name-1`, ..."""
    damaged.mkdir(exist_ok=True)
    taken = {p.name for p in damaged.iterdir()}
    names = (f"{path.name}-{i}" for i in range(len(taken) + 1))
    return damaged / next(name for name in names if name not in taken)
