"""From the tensors of a file to the variables of a network, and back."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.interop import tensor_names
from vgg_jax.interop.tensor_names import COUNTER, Shape, Tensor
from vgg_jax.nn.vgg import VGG

_SHOWN = 6  # names in a message

Arrays = Mapping[str, np.ndarray]


def to_variables(
    tensors: Arrays, model: VGG, convention: str, without: Collection[str] = ()
) -> dict[str, Any]:
    """Returns the variables of a network from the tensors of a file.

    Args:
        tensors: all that the file holds, float32. The counters of PyTorch's batch norm
            (`num_batches_tracked`) are the only ones that may go unused.
        model: the network that the file is of.
        convention: of its names and layouts.
        without: weight layers that it lacks.

    Raises:
        RunError: a tensor is left over, or one is missing, or has another shape; the
            message begins with a verb whose subject is the file.
    """
    expected = {t.name: t for t in tensor_names.tensors(model, convention, without)}
    fixed = tensor_names.fixed(model, convention)
    unused = [name for name in tensors if name not in expected and name not in fixed]
    missing = [name for name in expected if name not in tensors]
    if unused or missing:
        raise RunError(
            f"is not a whole {_title(model)}: unused: {_listed(unused)}; missing: "
            f"{_listed(missing)}"
        )
    for name, shape in fixed.items():
        if name not in tensors or name.endswith(COUNTER):
            continue
        if tensors[name].shape != shape or not (tensors[name] == 1).all():
            raise RunError(f"has other values than 1 in {name}, or not {shape} of them")
    return unflatten_dict(
        {
            (t.collection, t.layer, t.array): _to_ours(t, tensors[name])
            for name, t in expected.items()
        }
    )


def check_variables(
    variables: Mapping[str, Any], model: VGG, without: Collection[str] = ()
) -> None:
    """Checks that a network has the variables that its model needs, and no others.

    Args:
        variables: `params` and `batch_stats`.
        model: the network.
        without: weight layers that it lacks.

    Raises:
        ConfigError: one is left over, or missing, or has another shape.
    """
    expected = {
        f"{t.layer}/{t.array}": t.shape
        for t in tensor_names.tensors(model, "vgg_jax", without)
    }
    leaves: dict[str, Any] = flatten_dict(variables, sep="/")
    found = {name.partition("/")[2]: np.shape(x) for name, x in leaves.items()}
    unused = [name for name in found if name not in expected]
    missing = [name for name in expected if name not in found]
    if unused or missing:
        raise ConfigError(
            f"the variables are not those of the model, a {_title(model)}: unused: "
            f"{_listed(unused)}; missing: {_listed(missing)}"
        )
    for name, shape in expected.items():
        if not _fits(found[name], shape):
            raise ConfigError(
                f"{name} is {list(found[name])}, and the model, a {_title(model)}, "
                f"needs {_text(shape)}"
            )


def _title(model: VGG) -> str:
    return f"VGG of configuration {model.variant} with the {model.head} head"


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    more = len(names) - _SHOWN
    return (f"{shown} and {more} more" if more > 0 else shown) or "none"


def _to_ours(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    axes = tensor.layout.axes if tensor.layout else 1
    try:
        if value.ndim != axes:
            raise ValueError(f"it must have {axes} axes")
        ours = value
        if tensor.layout:
            ours = tensor.layout.to_ours(value, tensor.channels)
    except ValueError as error:
        raise RunError(
            f"has a {tensor.name} of shape {list(value.shape)} for {tensor.layer}: "
            f"{error}"
        ) from error
    if not _fits(ours.shape, tensor.shape):
        raise RunError(
            f"has a {tensor.name} of shape {list(value.shape)}, so {tensor.layer}/"
            f"{tensor.array} is {list(ours.shape)}, not {_text(tensor.shape)}"
        )
    return np.ascontiguousarray(ours)


def _text(shape: Shape) -> str:
    return f"[{', '.join('any' if n is None else str(n) for n in shape)}]"


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        n in (None, length) for length, n in zip(shape, wanted, strict=True)
    )


def to_tensors(
    variables: Mapping[str, Any],
    model: VGG,
    convention: str,
    without: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Returns the tensors of a file from the variables of a network.

    The inverse of `to_variables`, with the counters of batch norm at 0.

    Raises:
        RunError: a dense layer flattens a map that is not square.
    """
    tensors = {
        name: np.zeros((), np.int64) if name.endswith(COUNTER) else np.ones(shape, "f4")
        for name, shape in tensor_names.fixed(model, convention).items()
    }
    for t in tensor_names.tensors(model, convention, without):
        value = np.asarray(variables[t.collection][t.layer][t.array])
        try:
            value = t.layout.to_file(value, t.channels) if t.layout else value
        except ValueError as error:
            raise RunError(f"{t.layer} cannot be written so: {error}") from error
        tensors[t.name] = np.ascontiguousarray(value)
    return tensors


def checksum(arrays: Arrays) -> str:
    """Returns the SHA-256 of names, shapes and float32 values, in order of the names.

    >>> checksum({"bias": np.zeros(2)}) == checksum({"bias": np.zeros(2, np.float16)})
    True
    """
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], "<f4")
        sha256.update(f"{name} {list(arrays[name].shape)}\n".encode())
        sha256.update(values.reshape(-1).view(np.uint8))
    return sha256.hexdigest()
