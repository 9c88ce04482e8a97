"""Files that appear whole or not at all, and the directory of the cache."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Returns `vgg_jax` in the user's cache directory.

    That is `XDG_CACHE_HOME`, else `~/.cache`.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vgg_jax"


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by one rename, so that a crash leaves the old or the new one."""
    part = path.with_name(path.name + ".part")
    with open(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
