"""The directory of a run: one config, one process at a time."""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from vgg_jax import files
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.files import write_atomically
from vgg_jax.renamed import modern
from vgg_jax.runs import checked_json, checkpoint_record
from vgg_jax.runs.checkpoint_record import Record

CONFIG, CHECKPOINTS = "config.json", "checkpoints"

# Fields that may change between two starts of a run: they do not change its result, but
# for the rounding, which `mesh` (without shards) and `model.remat` may.
OPERATIONAL = (
    "data.data_dir",
    "data.archive_dir",
    "data.stream",
    "data.workers",
    "log",
    "mesh",
    "profile",
    "model.remat",
    "checkpoint.minutes",
)


# Orbax looks for its files by a glob of the path; it cannot read these back.
_UNREADABLE = "[\\"


@contextlib.contextmanager
def claim(
    path: Path,
    config: dict[str, Any],
    report: Callable[[str], None] = logging.warning,
    idle: Collection[str] = (),
) -> Iterator[None]:
    """Holds `path` for a run of `config`; `write_config` makes it that run's.

    Args:
        path: created if missing.
        config: nested plain values.
        report: receives a line where `config.json` is damaged.
        idle: dotted names of fields that do nothing in `config`, and may differ.

    Raises:
        RunError: the directory cannot be made, or another process holds it.
        ConfigError: its name cannot be used, or it belongs to another config; the
            message lists the differences.
    """
    _check_name(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY)  # the directory: nobody removes it by mistake
    except OSError as error:
        raise RunError(
            f"workdir {path} cannot be used ({error.strerror}): name another "
            "workdir, --workdir=DIR"
        ) from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock)
        try:
            _lock(lock, path, stack)
        except BlockingIOError as error:
            raise RunError(
                f"workdir {path} is in use by another run: wait for it, or name "
                "another with --workdir=DIR"
            ) from error
        _check_same(path, config, report, idle)
        yield


def is_claimed(path: Path) -> bool:
    """Returns whether a process holds `path` for its run; False if it is not there."""
    try:
        directory = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, directory)
        try:
            _lock(directory, path, stack)
        except OSError as error:
            return isinstance(error, BlockingIOError)
    return False


def _check_name(path: Path) -> None:
    name = str(path.absolute())
    bad = sorted(set(_UNREADABLE) & set(name))
    if bad or not name.isprintable():
        what = " ".join(bad) or "a letter that cannot be printed"
        raise ConfigError(
            f"workdir {name!r} holds {what}, and Orbax could not read its checkpoints "
            "back: name another with --workdir=DIR (or move it, if it is there)"
        )


def _lock(directory: int, path: Path, stack: contextlib.ExitStack) -> None:
    """Locks an open directory, or a file in it where that cannot be done (on NFS)."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        try:
            file = stack.enter_context(open(path / ".lock", "w"))
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES):  # we cannot write there
                return
            raise
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Writes `config.json`.

    Call it once the config has proved good, not before: what failed at once must not
    stand in the way of its correction.
    """
    text = checked_json.dumps(config, indent=2)
    write_atomically(path / CONFIG, text + "\n")


def _check_same(
    path: Path,
    config: dict[str, Any],
    report: Callable[[str], None],
    idle: Collection[str],
) -> None:
    """Checks that the run in a directory has this config.

    Its newest checkpoint knows the config too, should `config.json` be lost.
    """
    written, record = _config(path), newest(path)
    known = [kept for kept in (written, record.config) if kept]
    changes = [differences(old, config, idle) for old in known]
    if changes and all(changes):
        raise ConfigError(
            f"workdir {path} belongs to a run with another config ("
            + "; ".join(changes[0])
            + "): use another --workdir, or the same config to resume it"
        )
    if written is None:
        return
    if not written or changes[0]:
        files.set_aside(path / CONFIG, path / "damaged")
        write_config(path, config)
        compared = (
            "as its newest checkpoint has it"
            if record.config
            else ("as this command has it, and nothing is there to compare it with")
        )
        report(
            f"{path / CONFIG} was damaged: moved to damaged/, and written anew, "
            f"{compared}"
        )


def _config(path: Path) -> Mapping[str, Any] | None:
    """Returns the contents of `config.json`; {} if it is damaged, None if missing."""
    try:
        return checked_json.loads((path / CONFIG).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def newest(path: Path) -> Record:
    """Returns the record of a run's newest checkpoint that has a whole one.

    Where there is none, an empty one.
    """
    directory = path / CHECKPOINTS
    for number in reversed(checkpoint_record.numbers(directory)):
        with contextlib.suppress(checkpoint_record.Damaged):
            return checkpoint_record.read(directory / str(number))
    return Record(crc32=0)


def check_data(path: Path, data: Mapping[str, Any]) -> None:
    """Checks that the run in a directory was trained on these images.

    Args:
        path: workdir of the run.
        data: `data.description` of the data set at hand.

    Raises:
        ConfigError: it was trained on others.
    """
    known = newest(path).data
    changed = [
        f"{key}: {known[key]} -> {value}"
        for key, value in data.items()
        if known and not alike(known.get(key), json.loads(json.dumps(value)))
    ]
    if changed:
        raise ConfigError(
            f"workdir {path} belongs to a run on other images ({'; '.join(changed)}): "
            "give it the data that it began with (--config.data.data_dir), or use "
            "another --workdir"
        )


def alike(known: Any, found: Any) -> bool:
    """Returns whether two JSON values are equal, but for the rounding of a CPU.

    >>> alike({"std": [0.1, 2]}, {"std": [0.1 + 1e-12, 2]}), alike([0.1], [0.2])
    (True, False)
    """
    if isinstance(known, float) and isinstance(found, float):
        return math.isclose(known, found, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(known, dict) and isinstance(found, dict):
        both = known.keys() | found.keys()
        return all(alike(known.get(key), found.get(key)) for key in both)
    if isinstance(known, list) and isinstance(found, list):
        return len(known) == len(found) and all(map(alike, known, found))
    return known == found


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


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], idle: Collection[str] = ()
) -> list[str]:
    """Returns `field: old -> new` for every field whose difference changes the result.

    Args:
        old, new: nested plain values.
        idle: dotted names of fields that do nothing in `new`.

    >>> differences({"lr": 0.1, "profile": 0}, {"lr": 0.2, "profile": 9})
    ['lr: 0.1 -> 0.2']
    """
    old, new = (flatten(modern(json.loads(json.dumps(c)))) for c in (old, new))
    # Random crops are not the same from disk and in memory.
    fixed = {"data.stream"} if new.get("augment.scales") else set()
    operational = lambda key: any(
        key == name or key.startswith(name + ".") for name in {*OPERATIONAL} - fixed
    )
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not operational(key) and key not in idle
    ]
