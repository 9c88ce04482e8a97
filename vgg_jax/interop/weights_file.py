"""A file of weights, read into named arrays without trusting it.

Nothing in a file is run, no more is read than it holds, and what is wrong with it is
one line that names the file.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from vgg_jax.errors import RunError, system_errors
from vgg_jax.interop import hdf5_file, torch_file
from vgg_jax.interop.tensor_names import COUNTER

_FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)


class WeightsFile(NamedTuple):
    """Arrays as a file holds them.

    Attributes:
        path: of the file.
        tensors: name -> array, in the file's layout, float32 and finite.
        sha256: of the file, 64 hexadecimal digits.
        metadata: what the file says of itself; only safetensors do.
    """

    path: Path
    tensors: dict[str, np.ndarray]
    sha256: str
    metadata: Mapping[str, str] = {}


def read(path: Path) -> WeightsFile:
    """Reads a file of weights, of a kind in `READERS`.

    Args:
        path: of the file. Where the name of one of PyTorch's ends in eight hexadecimal
            digits, as `vgg16-397923af.pth` does, its SHA-256 must begin with them.

    Raises:
        RunError: there is no such file, it is damaged or not of its kind, or a tensor
            in it is not floating-point or not finite; or what reads it is missing here.
    """
    with system_errors(path):
        reader = _reader(path)
        sha256 = _sha256(path)
        tensors, metadata = reader(path)
    if not tensors:
        raise RunError(f"{path} holds no tensors")
    floats = {name: _float32(path, name, a) for name, a in tensors.items()}
    return WeightsFile(path, floats, sha256, metadata)


def _safetensors(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            return {name: _tensor(path, file, name) for name in file.keys()}, metadata
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} is damaged, or no safetensors file ({error}): fetch or save it "
            "again"
        ) from error


def _tensor(path: Path, file: Any, name: str) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except (AttributeError, TypeError) as error:  # float8: NumPy has no such type
        kind = file.get_slice(name).get_dtype()
        raise RunError(f"{path}: {_not_floats(name, kind)}") from error


def _not_floats(name: str, kind: object) -> str:
    return (
        f"{name} is of type {kind}, and weights are floating-point: save the network "
        "before it is quantised"
    )


_Read = tuple[dict[str, np.ndarray], Mapping[str, str]]
# How the name of a file ends -> what reads it.
READERS: dict[str, Callable[[Path], _Read]] = {
    ".safetensors": _safetensors,
    ".pth": lambda path: (torch_file.read(path), {}),
    ".pt": lambda path: (torch_file.read(path), {}),
    ".bin": lambda path: (torch_file.read(path), {}),
    ".h5": lambda path: (hdf5_file.read(path), {}),
    ".hdf5": lambda path: (hdf5_file.read(path), {}),
}


def _reader(path: Path) -> Callable[[Path], _Read]:
    if not path.exists():
        raise RunError(f"{path} does not exist: name a file of weights or a workdir")
    if not path.is_file():
        raise RunError(f"{path} is not a file: name one of {', '.join(READERS)}")
    if not path.stat().st_size:
        raise RunError(f"{path} is empty: fetch or save it again")
    if path.suffix not in READERS:
        hint = ", ".join(READERS)
        if path.suffix == ".keras":
            hint = "model.save_weights('x.weights.h5') in Keras writes one that can be"
        raise RunError(f"{path} is no file of weights that can be read: {hint}")
    return READERS[path.suffix]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if named and not sha256.startswith(named[1]):
        raise RunError(
            f"{path} is damaged: its SHA-256 begins with {sha256[:8]}, not with the "
            f"{named[1]} of its name; fetch it again, or rename it if they are no "
            "checksum"
        )
    return sha256


def _float32(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Returns a tensor as float32, once it is known to be finite."""
    if name.endswith(COUNTER):
        return array
    if array.dtype not in _FLOATS:
        raise RunError(f"{path}: {_not_floats(name, array.dtype)}")
    with np.errstate(over="ignore"):  # of float64, which is told below
        weights = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    if not np.isfinite(weights).all():
        raise RunError(f"{path}: {name} holds NaN or infinity: it is of no use")
    return weights
