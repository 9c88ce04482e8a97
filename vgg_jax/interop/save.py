"""A network into a safetensors file, for this package or for torchvision and timm."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save as serialized

from vgg_jax.errors import ConfigError, choose, system_errors
from vgg_jax.files import check_target, write_atomically
from vgg_jax.interop import arrays, layer_names, metadata
from vgg_jax.interop.layer_names import Named
from vgg_jax.interop.network import (
    HEAD,
    Network,
    check_network,
    check_unprepared,
)
from vgg_jax.interop.tensor_names import CONVENTIONS
from vgg_jax.nn import architecture

OWN = "vgg_jax"
WRITTEN = (OWN, "torchvision", "timm")  # conventions
DTYPES = ("float32", "float16", "bfloat16")
_FIRST = "conv1_1"  # the layer that sees the channels of images
SUFFIX = ".safetensors"


def save(
    network: Network,
    path: str | Path,
    *,
    convention: str = "vgg_jax",
    dtype: str = "float32",
    overwrite: bool = False,
) -> None:
    """Writes a network and all that belongs to it; `load` returns it as it was.

    The file appears whole or not at all. What PyTorch's programs do not need stands in
    its metadata, under `vgg_jax`, as JSON.

    Args:
        network: weights, model, preprocessing and names of the classes.
        path: ends in `.safetensors`.
        convention: names and layouts: "vgg_jax" (HWIO); "torchvision" or "timm", whose
            `load_state_dict(strict=True)` takes the file. A "compact" head becomes the
            one layer of a torchvision VGG with `vgg.avgpool = AdaptiveAvgPool2d(1)` and
            `vgg.classifier = Linear(512, num_classes)`; a scale of the logits goes into
            the weights of `fc8`, and BGR into those of `conv1_1`, and they come back
            there.
        dtype: of the parameters in the file: "float32", "float16" or "bfloat16"; the
            running averages of batch norm are float32.
        overwrite: whether a file that is there is replaced.

    Raises:
        ConfigError: a name is unknown, or the file is there, or the convention has no
            such network: with LRN or average pooling, with a "paper" head for other
            maps than 7x7 pixels; "timm" knows no "compact" head. Or `load` would refuse
            the file: the variables are not the model's, or not finite in `dtype`, or
            the classes have other names than one each.
        RunError: the file cannot be written.
    """
    check_network(network)
    check_unprepared(network)
    path = Path(path)
    choose(WRITTEN, convention, "convention")
    choose(DTYPES, dtype, "dtype")
    check_target(path, SUFFIX, overwrite)
    network = network.replace(variables=jax.device_get(network.variables))
    arrays.check_variables(network.variables, network.model, _without(network))
    if convention != OWN:
        network = _folded(network)
        _check_expressible(network, convention)
    with system_errors(path):
        write_atomically(path, _content(network, convention, jnp.dtype(dtype)))


def _content(network: Network, convention: str, dtype: np.dtype) -> bytes:
    without = _without(network)
    with np.errstate(over="ignore"):  # it is told below
        cast = lambda x: np.asarray(x).astype(dtype)
        params = jax.tree.map(cast, network.variables["params"])
    variables = {**network.variables, "params": params}
    tensors = arrays.to_tensors(variables, network.model, convention, without)
    for name, x in tensors.items():
        if not np.isfinite(x.astype(np.float32)).all():
            raise ConfigError(
                f"{name} holds NaN or infinity in {dtype}: nothing is saved"
            )
    said = metadata.dumps(network, convention, without, arrays.checksum(tensors))
    try:
        metadata.loads(said)
    except ValueError as error:
        raise ConfigError(f"the network cannot be saved: {error}") from error
    form = "flax" if convention == OWN else "pt"
    return serialized(tensors, {"format": form, metadata.KEY: said})


def _without(network: Network) -> list[str]:
    """Returns the dense layers that a network lacks."""
    return [
        row.spec.name
        for row in layer_names.table(network.model)
        if row.spec.kind == "dense" and row.spec.name not in network.variables["params"]
    ]


def _folded(network: Network) -> Network:
    """Returns a network that computes the same, as modules of PyTorch can.

    Its logits are scaled by `fc8` itself, and it sees RGB.
    """
    params, model = dict(network.variables["params"]), network.model
    seen = network.preprocessing
    if model.logit_scale != 1 and HEAD in params:
        scale = np.float32(model.logit_scale)
        params[HEAD] = {name: x * scale for name, x in params[HEAD].items()}
        model = model.clone(logit_scale=1.0)
    if seen.order == "BGR":
        kernel = params[_FIRST]["kernel"][:, :, ::-1]
        params[_FIRST] = {**params[_FIRST], "kernel": kernel}
        seen = dataclasses.replace(seen, order="RGB")
    variables = {**network.variables, "params": params}
    return network.replace(variables=variables, model=model, preprocessing=seen)


def _check_expressible(network: Network, convention: str) -> None:
    if obstacle := _obstacle(network, CONVENTIONS[convention].module):
        raise ConfigError(
            f"convention={convention!r} has no {obstacle}: save it with "
            f"convention={OWN!r}"
        )


def _obstacle(network: Network, module: Callable[[Named], str]) -> str:
    """Returns what of a network the layers of a convention cannot do, or ""."""
    model, params = network.model, network.variables["params"]
    if "LRN" in sum(architecture.stages(model.variant), []):
        return f"LRN, as configuration {model.variant} has"
    if model.pool != "max":
        return f"pool={model.pool!r}"
    rows = [row for row in layer_names.table(model) if row.spec.name in params]
    if not all(map(module, rows)):
        hidden = f" with {len(model.hidden)} hidden layers, not 2"
        return f"head={model.head!r}{hidden if model.head != 'compact' else ''}"
    first, channels = architecture.head_input(layer_names.specs(model))
    inputs = len(params[first]["kernel"]) if first in params else 0
    if model.head == "paper" and inputs not in (0, architecture.MAP**2 * channels):
        return f"head='paper' with {inputs} inputs, only one of maps of 7x7 pixels"
    return ""
