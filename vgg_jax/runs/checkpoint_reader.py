"""Reads a checkpoint's arrays, and tells damage from other trouble."""

import errno
import os
import zlib
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vgg_jax.errors import RunError
from vgg_jax.runs import checkpoint_record, manifest, old_checkpoints
from vgg_jax.runs.checkpoint_record import Damaged

# What Orbax and TensorStore say of torn files. Version 0.1 kept no list of them.
_TORN = ("DATA_LOSS", "NOT_FOUND", "OUT_OF_RANGE", "Error decoding", "not found")
_SHORT = 160  # letters of an error that is quoted


def alone() -> ocp.options.MultiprocessingOptions:
    """Returns how Orbax works in this process without waiting for others of the run."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"vgg{own}"
    )


def restore[State](checkpoint: Path, like: State) -> State:
    """Reads a checkpoint, a directory of Orbax, into a structure and its types.

    Raises:
        Damaged: its files or its arrays are not those that were written.
        RunError: it is whole, and cannot be read here: it has another structure, too
            many files are open, memory is short.
    """
    listed = (checkpoint / manifest.FILE).exists()
    name = f"checkpoint {checkpoint.name}"
    try:
        record = checkpoint_record.read(checkpoint)
        if listed and (problem := manifest.damage(checkpoint)):
            raise Damaged(f"{name}: {problem}")
        return _arrays(checkpoint, like, record.crc32)
    except Damaged:
        raise
    except Exception as error:
        if not listed and is_torn(error):
            raise Damaged(f"{name} is damaged: {reason(error)}") from error
        raise RunError(
            f"{name} in {checkpoint.parent} is whole but cannot be read here "
            f"({reason(error)}){_written_by(checkpoint)}: nothing was moved or changed"
        ) from error


def _arrays[State](checkpoint: Path, like: State, crc: int) -> State:
    empty = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
    structure, to_new = old_checkpoints.structure(checkpoint, empty)
    with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
        saved: Any = checkpointer.restore(checkpoint / "state", structure)
    if crc32(saved) != crc:
        raise Damaged(
            f"checkpoint {checkpoint.name} is damaged: the CRC-32 of its arrays is "
            "wrong"
        )
    return jax.device_put(to_new(saved))


def is_torn(error: Exception) -> bool:
    """Whether an error shows that files were damaged, where no list of them is kept."""
    kinds = FileNotFoundError, NotADirectoryError, UnicodeDecodeError, JSONDecodeError
    return isinstance(error, kinds) or any(text in str(error) for text in _TORN)


def _written_by(checkpoint: Path) -> str:
    """Returns which versions wrote a checkpoint, as the end of a sentence."""
    try:
        known = checkpoint_record.read(checkpoint).environment
    except (RunError, OSError):
        return ""
    names = [name for name in ("vgg_jax", "jax", "optax", "flax") if name in known]
    versions = ", ".join(f"{name} {known[name]}" for name in names)
    return f"; written by {versions or 'an older version'}, which can read it"


def reason(error: BaseException) -> str:
    """Returns an error of Orbax on one line: what the system said, if it did.

    >>> reason(ValueError("Error writing ... No space left on device [location]"))
    'No space left on device'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    for number in errno.errorcode:
        if os.strerror(number) in text:
            return os.strerror(number)
    return text if len(text) <= _SHORT else "..." + text[-_SHORT:]


def crc32(state: Any) -> int:
    """Returns the CRC-32 over all arrays of a pytree, in order."""
    crc = 0
    for array in jax.tree.leaves(state):
        crc = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, crc)
    return crc
