"""The directory of a run: one config, one process at a time."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.files import write_atomically
from vgg_jax.renamed import modern

# Fields that may change between two starts of a run: they do not change its result.
OPERATIONAL = (
    "data.data_dir",
    "data.archive_dir",
    "data.stream",
    "log",
    "profile",
    "checkpoint.minutes",
)


@contextlib.contextmanager
def claim(path: Path, config: dict[str, Any]) -> Iterator[None]:
    """Holds `path` for a run of `config`; `write_config` makes it that run's.

    Args:
        path: created if missing.
        config: nested plain values.

    Raises:
        RunError: the directory cannot be written, or another process holds it.
        ConfigError: it belongs to another config; the message lists the differences.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w")
    except OSError as error:
        raise RunError(
            f"workdir {path} cannot be written ({error.strerror}): name another "
            "workdir, --workdir=DIR"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"workdir {path} is in use by another run: wait for it, or name "
                "another with --workdir=DIR"
            ) from error
        _check_same(path, config)
        yield


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Writes `config.json`.

    Call it once the config has proved good, not before: what failed at once must not
    stand in the way of its correction.
    """
    write_atomically(path / "config.json", json.dumps(config, indent=2) + "\n")


def _check_same(path, config):
    file = path / "config.json"
    if not file.exists():
        return
    try:
        old = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise RunError(f"{file} is damaged ({error}); use another --workdir") from error
    changes = differences(old, config)
    if changes:
        raise ConfigError(
            f"workdir {path} belongs to a run with another config ("
            + "; ".join(changes)
            + "): use another --workdir, or the same config to resume it"
        )


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested fields by their dotted names.

    >>> flatten({"lr": 0.1, "model": {"variant": "D"}})
    {'lr': 0.1, 'model.variant': 'D'}
    """
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns `field: old -> new` for every field whose difference changes the result.

    >>> differences({"lr": 0.1, "profile": 0}, {"lr": 0.2, "profile": 9})
    ['lr: 0.1 -> 0.2']
    """
    old, new = (flatten(modern(json.loads(json.dumps(c)))) for c in (old, new))
    operational = lambda key: any(
        key == name or key.startswith(name + ".") for name in OPERATIONAL
    )
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not operational(key)
    ]
