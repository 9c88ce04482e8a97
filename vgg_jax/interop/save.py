"""A network into a safetensors file, for this package or for torchvision and timm."""

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
from vgg_jax.interop.network import HEAD, Network
from vgg_jax.interop.tensor_names import CONVENTIONS, COUNTER
from vgg_jax.nn import architecture

OWN = "vgg_jax"
WRITTEN = (OWN, "torchvision", "timm")  # conventions
DTYPES = ("float32", "float16", "bfloat16")
SUFFIX = ".safetensors"
_PIXELS = 49  # of the map that the hidden layers of torchvision and timm see: 7x7


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
            the weights of `fc8`, and comes back there.
        dtype: of the weights in the file: "float32", "float16" or "bfloat16".
        overwrite: whether a file that is there is replaced.

    Raises:
        ConfigError: a name is unknown, or the file is there, or the convention has no
            such network: with LRN or average pooling, with a "paper" head for other
            maps than 7x7 pixels; "timm" knows no "compact" head.
        RunError: the file cannot be written.
    """
    path = Path(path)
    choose(WRITTEN, convention, "convention")
    choose(DTYPES, dtype, "dtype")
    check_target(path, SUFFIX, overwrite)
    network = network.replace(variables=jax.device_get(network.variables))
    if convention != OWN:
        network = _folded(network)
        _check_expressible(network, convention)
    with system_errors(path):
        write_atomically(path, _content(network, convention, jnp.dtype(dtype)))


def _content(network: Network, convention: str, dtype: np.dtype) -> bytes:
    params, model = network.variables["params"], network.model
    without = [
        row.spec.name
        for row in layer_names.table(model)
        if row.spec.has_kernel and row.spec.name not in params
    ]
    tensors = arrays.to_tensors(network.variables, model, convention, without)
    tensors = {
        name: x if name.endswith(COUNTER) else x.astype(dtype)
        for name, x in tensors.items()
    }
    said = metadata.dumps(network, convention, without, arrays.checksum(tensors))
    form = "flax" if convention == OWN else "pt"
    return serialized(tensors, {"format": form, metadata.KEY: said})


def _folded(network: Network) -> Network:
    """Returns a network that computes the same, its logits scaled by `fc8` itself."""
    params, scale = network.variables["params"], network.model.logit_scale
    if scale == 1 or HEAD not in params:
        return network
    head = {name: (x * np.float32(scale)) for name, x in params[HEAD].items()}
    return network.replace(
        variables={**network.variables, "params": {**params, HEAD: head}},
        model=network.model.clone(logit_scale=1.0),
    )


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
    convolutions = [row.spec.name for row in rows if row.spec.kind == "conv"]
    dense = [row.spec.name for row in rows if row.spec.kind == "dense"]
    map_values = _PIXELS * len(params[convolutions[-1]]["bias"])
    inputs = len(params[dense[0]]["kernel"]) if dense else map_values
    if model.head == "paper" and inputs != map_values:
        return f"head='paper' with {inputs} inputs, only one of maps of 7x7 pixels"
    return ""
