"""What a file that `save` wrote says of the network in it, as JSON."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import vgg_jax
from vgg_jax.errors import ConfigError, choose
from vgg_jax.fields import check_value, in_range
from vgg_jax.interop import layer_names
from vgg_jax.interop.network import Network
from vgg_jax.interop.tensor_names import CONVENTIONS
from vgg_jax.nn.preprocessing import Preprocessing
from vgg_jax.nn.vgg import VGG

KEY = "vgg_jax"  # in the metadata of a safetensors file
_FLAX = ("parent", "name")


class Metadata(NamedTuple):
    """A file's account of itself.

    Attributes:
        convention: of its names and layouts.
        without: weight layers that it lacks.
        tensors_sha256: of its tensors (`checksum`), 64 hexadecimal digits.
        network: the network without its variables.
    """

    convention: str
    without: tuple[str, ...]
    tensors_sha256: str
    network: Network


def dumps(
    network: Network, convention: str, without: Collection[str], tensors_sha256: str
) -> str:
    """Returns what `loads` reads back, all of a network but its variables."""
    model = {
        f.name: getattr(network.model, f.name)
        for f in dataclasses.fields(network.model)
        if f.name not in _FLAX
    }
    model["dtype"] = jnp.dtype(model["dtype"]).name
    return json.dumps(
        {
            "version": vgg_jax.__version__,
            "convention": convention,
            "without": list(without),
            "tensors_sha256": tensors_sha256,
            "model": model,
            "preprocessing": network.preprocessing.to_json(),
            "size": network.size,
            "class_names": network.class_names,
            "source": network.source,
            "sha256": network.sha256,
            "random_layers": network.random_layers,
        },
        default=_plain,
    )


def _plain(value: Any) -> Any:
    """Returns a number of NumPy as Python's; a path as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def loads(text: str) -> Metadata:
    """Returns the account that a file gives of itself.

    Raises:
        ValueError: it is not one that `dumps` wrote, or a later version did that has
            other fields. A `ConfigError` is one, too.
    """
    wrong = ArithmeticError, AttributeError, LookupError, RecursionError, TypeError
    try:
        said: dict[str, Any] = json.loads(text)
        check_value("size", said["size"], int, in_range(0))
        network = Network(
            variables={},
            model=model(said["model"]),
            preprocessing=Preprocessing.from_json(said["preprocessing"]),
            size=said["size"],
            class_names=_texts(said["class_names"]),
            source=str(said["source"]),
            sha256=str(said["sha256"]),
            random_layers=_texts(said["random_layers"]),
        )
        rows = layer_names.table(network.model)
        names = [row.spec.name for row in rows]
        dense = [row.spec.name for row in rows if row.spec.kind == "dense"]
        for field, known in (("without", dense), ("random_layers", names)):
            for name in _texts(said[field]):
                choose(known, name, field)
        if len(network.class_names) not in (0, network.model.num_classes):
            raise ValueError(
                f"{len(network.class_names)} class_names for "
                f"{network.model.num_classes} classes"
            )
        return Metadata(
            choose([*CONVENTIONS], said["convention"], "convention"),
            _texts(said["without"]),
            str(said["tensors_sha256"]),
            network,
        )
    except wrong as error:
        raise ValueError(f"{type(error).__name__} {error}") from error


def cause(text: str) -> str:
    """Returns why metadata that `loads` refuses may be wrong."""
    try:
        version = json.loads(text)["version"]
    except (ValueError, LookupError, TypeError):
        return "damaged"
    if version == vgg_jax.__version__:
        return "damaged"
    return f"of version {str(version)[:20]}, and this is {vgg_jax.__version__}"


def model(fields: Mapping[str, Any]) -> VGG:
    """Returns the network with these fields, as JSON keeps them.

    Raises:
        ConfigError: one of them is unknown or out of its range.

    >>> model({"variant": "A", "hidden": [8], "dtype": "bfloat16"}).hidden
    (8,)
    """
    known = {f.name for f in dataclasses.fields(VGG)} - {*_FLAX}
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ConfigError(f"model.{unknown[0]} is unknown to this version")
    name = str(fields.get("dtype", "float32"))
    return VGG(**{**fields, "dtype": getattr(jnp, name, name)})


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(x, str) for x in values):
        raise ValueError(f"{str(values)[:60]!r} is no list of texts")
    return tuple(values)
