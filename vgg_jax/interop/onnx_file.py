"""A network as ONNX, for programs that run it: pixels in, probabilities out."""

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax import export

from vgg_jax.errors import ConfigError, choose, system_errors
from vgg_jax.files import check_target, write_atomically
from vgg_jax.interop.classifier import (
    INPUT,
    LAYOUTS,
    OUTPUTS,
    Classifier,
    classifier,
    metadata_texts,
)
from vgg_jax.interop.network import Network

SUFFIX = ".onnx"
_LARGEST = 2**31 - 1  # bytes of a protocol buffer


def save(
    network: Network,
    path: str | Path,
    *,
    size: int = 0,
    layout: str = "nhwc",
    overwrite: bool = False,
) -> None:
    """Writes a graph from uint8 `images` to float32 `logits` and `probabilities`.

    It takes any number of images B and computes in float32. The preprocessing is
    inside: what a program would have to get right, and could not check. Names of the
    classes, preprocessing and source of the weights are in `metadata_props`, as JSON.

    Args:
        network: with a head.
        path: ends in `.onnx`.
        size: height and width of the images; 0: those the network was trained on.
        layout: of the images: "nhwc", `[B, H, W, C]`, or "nchw", `[B, C, H, W]`.
        overwrite: whether a file that is there is replaced.

    Raises:
        ConfigError: the file is there; jax2onnx is not installed; or the network cannot
            be exported (`classifier.classifier`).
        RunError: the file cannot be written.
    """
    path = Path(path)
    choose(LAYOUTS, layout, "layout")
    check_target(path, SUFFIX, overwrite)
    content = graph(classifier(network, size=size, layout=layout))
    with system_errors(path):
        write_atomically(path, content)


def graph(made: Classifier) -> bytes:
    """Returns the serialised ONNX model.

    Raises:
        ConfigError: jax2onnx is not installed, or the model exceeds 2 GB.
    """
    to_onnx = _converter()
    (count,) = export.symbolic_shape("B")
    images = jax.ShapeDtypeStruct((count, *made.image_shape), "uint8")
    model = to_onnx(
        made.__call__,
        [images],
        model_name="vgg_jax",
        input_names=[INPUT],
        output_names=[*OUTPUTS],
    )
    _describe(model, made.card())
    if model.ByteSize() > _LARGEST:
        raise ConfigError("an ONNX file holds at most 2 GB: use --to=stablehlo")
    return model.SerializeToString()


def _converter() -> Any:
    """Returns `jax2onnx.to_onnx`, silent."""
    try:
        to_onnx = importlib.import_module("jax2onnx").to_onnx
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"ONNX needs {error.name}, which is not installed here: "
            "pip install 'vgg_jax[onnx]'"
        ) from error
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)
    return to_onnx


def _describe(model: Any, card: Mapping[str, Any]) -> None:
    model.producer_name, model.producer_version = "vgg_jax", card["version"]
    for key, value in metadata_texts(card).items():
        model.metadata_props.add(key=key, value=value)
