"""Files that `torch.save` wrote, read by PyTorch's own restricted unpickler."""

import importlib
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vgg_jax.errors import RunError

_CONVERT = (
    "convert it where PyTorch is: "
    "safetensors.torch.save_file(torch.load(path, weights_only=True), new)"
)


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict.

    No code in the file is run: `torch.load(weights_only=True)` knows tensors and plain
    containers only. The older format, which torchvision's published files have
    (PyTorch before 1.6), goes the same way.

    Raises:
        RunError: PyTorch is not installed; or the file is damaged, holds other than
            tensors, or unpacks to more than it holds.
    """
    _check_archive(path)
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise RunError(
            f"{path} can only be read by PyTorch, which is not installed here: "
            f"pip install torch, or {_CONVERT}"
        ) from error
    try:
        with warnings.catch_warnings():  # of pickles that it refuses
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path} holds other than tensors, such as a whole module or code, or is "
            "damaged, and is not unpickled: save module.state_dict() alone"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(
            f"{path} is damaged, or no file of PyTorch ({reason})"
        ) from error
    return _arrays(torch, path, state)


def _check_archive(path: Path) -> None:
    """Refuses an archive that unpacks to more than it is."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise RunError(f"{path} is damaged ({error})") from error
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    total = sum(member.file_size for member in members)
    if total > path.stat().st_size:
        raise RunError(
            f"{path} would unpack to {total:,} bytes from {path.stat().st_size:,}: no "
            "state dict of PyTorch is compressed, and this one is not read"
        )
    if packed:
        raise RunError(
            f"{path} holds compressed parts, as a program of TorchScript does and no "
            "state dict: save module.state_dict()"
        )


def _arrays(torch: Any, path: Path, state: Any) -> dict[str, np.ndarray]:
    if not isinstance(state, dict):
        raise RunError(
            f"{path} holds a {type(state).__name__}, not a state dict: save "
            "module.state_dict()"
        )
    for name, tensor in state.items():
        if isinstance(tensor, dict):
            raise RunError(
                f"{path} holds more than weights ({', '.join(map(str, state))}): save "
                f"its {name!r} alone"
            )
        plain = isinstance(tensor, torch.Tensor) and isinstance(name, str)
        dense = plain and tensor.layout == torch.strided and not tensor.is_nested
        if not dense or tensor.is_quantized:
            raise RunError(f"{path}: {name} is not a dense tensor")
    total = sum(t.numel() * t.element_size() for t in state.values())
    if total > path.stat().st_size:  # by strides of 0, or storage used many times
        raise RunError(
            f"{path} declares {total:,} bytes of tensors in a file of "
            f"{path.stat().st_size:,}: it is not read"
        )
    return {name: _array(torch, path, name, x) for name, x in state.items()}


def _array(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    try:
        return wide.detach().numpy()
    except (RuntimeError, TypeError) as error:  # float8, complex conjugates, no storage
        raise RunError(
            f"{path}: {name} is of type {tensor.dtype} on {tensor.device}, and not "
            "plain floating-point numbers: save the network before it is quantised"
        ) from error
