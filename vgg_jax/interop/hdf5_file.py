"""Keras' files of weights in HDF5: `.weights.h5` of Keras 3, `.h5` of older ones."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.errors import RunError

_KINDS = {1: "bias"}  # by number of axes; the others are kernels
_WRONG = AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the weights as `block1_conv1/kernel`, `block1_conv1/bias`.

    Groups are followed by the names that the format has, never by links; a data set is
    read if it is plain numbers that the file holds in full. The optimiser's state in
    the file of a whole model is not looked at.

    Raises:
        RunError: h5py is not installed; or the file is damaged, of another layout, or
            declares what it does not hold.
    """
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as error:
        raise RunError(
            f"{path} can only be read by h5py, which is not installed here: "
            "pip install 'vgg_jax[interop]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            found = list(_datasets(h5py, path, file))
            return _arrays(h5py, path, found)
    except _WRONG as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"{path} is damaged, or no file of Keras ({reason})") from error


def _datasets(h5py: Any, path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Yields name of the layer and data set of every weight."""
    if "layers" in file:
        yield from _of_keras_3(h5py, path, file)
        return
    root = (
        _child(h5py, path, file, "model_weights") if "model_weights" in file else file
    )
    if "layer_names" not in root.attrs:
        raise RunError(f"{path} is an HDF5 file, but has no weights of Keras in it")
    for layer in _names(root, "layer_names"):
        group = _child(h5py, path, root, layer)
        for name in _names(group, "weight_names"):
            yield layer, _child(h5py, path, group, name)


def _of_keras_3(h5py: Any, path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    layers = _child(h5py, path, file, "layers")
    for number in layers:
        inner = _child(h5py, path, layers, number)
        if "layers" in inner:
            raise RunError(
                f"{path} holds a model inside of a model ({number}): save the weights "
                "of the inner one alone, which is the VGG"
            )
        group = _child(h5py, path, inner, "vars")
        if not len(group):
            continue
        name = group.attrs.get("name")
        if not isinstance(name, str):
            raise RunError(
                f"{path} does not name its layers (Keras before 3.6): save it again "
                "with a newer Keras, or as .h5"
            )
        for place in group:
            yield name, _child(h5py, path, group, place)


def _names(group: Any, key: str) -> list[str]:
    names = group.attrs[key]
    return [n.decode() if isinstance(n, bytes) else str(n) for n in names]


def _child(h5py: Any, path: Path, group: Any, name: str) -> Any:
    """Returns what a group holds by a name, or by several with slashes between."""
    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise RunError(f"{path} is damaged: it names {name!r} and has none")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise RunError(f"{path}: {name} is a link to elsewhere, which is not read")
        group = group[part]
    return group


def _arrays(h5py: Any, path: Path, found: list[tuple[str, Any]]) -> dict[str, Any]:
    total = 0
    for layer, data in found:
        if not isinstance(data, h5py.Dataset):
            raise RunError(f"{path}: {layer} holds groups where weights should be")
        if data.dtype.kind in "fiu":
            total += data.size * data.dtype.itemsize
        if data.dtype.kind not in "fiu" or not _is_held(data):
            raise RunError(
                f"{path}: a weight of {layer} is not plain numbers that the file holds "
                "in full (it is compressed, external or torn), and is not read"
            )
    if total > path.stat().st_size:  # by data sets that are named many times
        raise RunError(f"{path} declares {total:,} bytes of weights and is smaller")
    arrays = {f"{layer}/{_KINDS.get(x.ndim, 'kernel')}": x[()] for layer, x in found}
    if len(arrays) < len(found):
        raise RunError(
            f"{path} has layers with more than a kernel and a bias: it is no VGG of "
            "Keras"
        )
    return arrays


def _is_held(data: Any) -> bool:
    """Returns whether the file itself holds every number that is declared."""
    plain = data.chunks is None and not data.is_virtual and data.external is None
    return plain and data.id.get_storage_size() == data.size * data.dtype.itemsize
