"""Where things that can be made again are kept."""

import os
from pathlib import Path


def directory() -> Path:
    """`vgg_jax` in the user's cache directory (`XDG_CACHE_HOME`, else `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vgg_jax"
