"""Files of the Hugging Face hub, fetched only where a source says `hf://`."""

import importlib
from pathlib import Path
from typing import Any

from vgg_jax.errors import ConfigError, RunError

PREFIX = "hf://"
_FILE = "model.safetensors"  # what a repository of timm's has


def fetch(source: str) -> Path:
    """Returns the path of a file of the hub, fetched unless it is in the hub's cache.

    Args:
        source: `hf://owner/name/file`, or `hf://owner/name` for its
            `model.safetensors`.

    Raises:
        ConfigError: `source` is neither.
        RunError: huggingface_hub is not installed, or the file cannot be had.
    """
    owner, name, file = [*source.removeprefix(PREFIX).split("/", 2), "", ""][:3]
    if not owner or not name:
        raise ConfigError(
            f"source={source!r} names no file of the hub: write hf://owner/name/file"
        )
    try:
        library: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise RunError(
            f"{source} is fetched by huggingface_hub, which is not installed here: "
            "pip install 'vgg_jax[interop]', or name a file"
        ) from error
    try:
        return Path(library.hf_hub_download(f"{owner}/{name}", file or _FILE))
    except (OSError, ValueError, RuntimeError, library.errors.HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{source} could not be fetched: {reason[:200]}") from error
