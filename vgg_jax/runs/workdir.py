"""The directory of a run: one config, one process at a time."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.runs.metric_log import write_atomically

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
    """Holds `path` for a run of `config`; `record` makes it that run's.

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
            f"workdir {path} cannot be written ({error.strerror}): name another with "
            "--workdir=DIR"
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


def record(path: Path, config: dict[str, Any]) -> None:
    """Writes `config.json`. Call once the config has proved good, not before: what
    failed at once must not stand in the way of its correction."""
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
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`field: old -> new` for every field that differs and matters to the result."""
    old, new = (flatten(json.loads(json.dumps(c))) for c in (old, new))
    operational = lambda key: any(  # noqa: E731
        key == name or key.startswith(name + ".") for name in OPERATIONAL
    )
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not operational(key)
    ]
