"""Arrays kept on disk from one start to the next, up to a size."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax import files
from vgg_jax.errors import ConfigError

VARIABLE = "VGG_JAX_CACHE_GB"  # of the environment: the size that all may have; 0: none
_GIGABYTES = 10.0


def load(name: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays kept under a name; None if there are none, or damaged ones.

    Raises:
        ConfigError: `VARIABLE` is not a number.
    """
    if not _limit():
        return None
    path = _directory() / f"{name}.npz"
    try:
        # Opened here, as `np.load` leaves a damaged file open. Zip members carry a CRC.
        with open(path, "rb") as file, np.load(file) as arrays:
            loaded = dict(arrays)
    except MemoryError:
        raise
    except Exception:  # absent, or damaged in any way
        return None
    with contextlib.suppress(OSError):  # of another user, say
        os.utime(path)  # used now
    return loaded


def store(name: str, arrays: Mapping[str, Any]) -> None:
    """Keeps arrays; a full or read-only disk is no error.

    What was not used for longest makes room. Arrays that alone exceed the limit are not
    kept. A file that another process reads or writes may go: it reads on, and what it
    writes is not kept.

    Raises:
        ConfigError: `VARIABLE` is not a number.
    """
    limit = _limit()
    path = _directory() / f"{name}.npz"
    if (size := sum(array.nbytes for array in arrays.values())) > limit:
        return
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(limit - size)
        with open(part, "wb") as file:
            np.savez(file, **arrays)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()


def _directory() -> Path:
    return files.cache_directory() / "decoded"


def _limit() -> float:
    """Returns the bytes that all files together may have."""
    text = os.environ.get(VARIABLE) or str(_GIGABYTES)
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not limit >= 0:  # or not a number
        raise ConfigError(
            f"{VARIABLE}={text!r} is not a number of gigabytes: write 20, or 0 for no "
            "cache of decoded images"
        )
    return limit


def _make_room(size: float) -> None:
    """Removes what was used longest ago, so that `size` bytes stay at most."""
    ages = []
    for path in _directory().iterdir():
        with contextlib.suppress(OSError):  # another process removed it
            stat = path.stat()
            ages.append((stat.st_mtime_ns, path, stat.st_size))
    total = sum(size for _, _, size in ages)
    for _, path, bytes_freed in sorted(ages):
        if total <= size:
            break
        path.unlink(missing_ok=True)
        total -= bytes_freed
