"""A network as one HTML file that classifies pictures in a browser, offline.

The file holds the network as ONNX and ONNX Runtime Web, gzipped and in base64; its
content security policy forbids it to ask the network for anything.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgg_jax.errors import ConfigError, system_errors
from vgg_jax.files import check_target, write_atomically
from vgg_jax.interop import onnx_file
from vgg_jax.interop.classifier import Classifier, classifier
from vgg_jax.interop.network import Network
from vgg_jax.nn.preprocessing import name_of

SUFFIX = ".html"
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"  # of npm
_MODULE, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


class _Runtime(NamedTuple):
    """ONNX Runtime Web: its version, its JavaScript and its WebAssembly."""

    version: str
    module: bytes
    wasm: bytes


def save(
    network: Network,
    path: str | Path,
    *,
    size: int = 0,
    runtime: str | Path = "",
    facts: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a page that classifies pictures of any size; 6 MB and the network.

    Args:
        network: with a head, of colour pictures. Where it does not know the names of
            its classes, the page shows their numbers.
        path: ends in `.html`.
        size: height and width of its images; 0: those it was trained on.
        runtime: directory of the npm package onnxruntime-web; "": that in
            `node_modules`, here or in a directory above.
        facts: further rows of the network's card on the page: what -> text.
        overwrite: whether a file that is there is replaced.

    Raises:
        ConfigError: the file is there; jax2onnx or ONNX Runtime Web is not installed;
            or the network cannot be exported (`classifier.classifier`).
        RunError: the file cannot be written.
    """
    path = Path(path)
    check_target(path, SUFFIX, overwrite)
    engine = _read_runtime(runtime)
    made = classifier(network, size=size)
    if made.channels != 3:
        raise ConfigError(
            f"{network.source} is for images of {made.channels} channels: a page shows "
            "colour pictures; use --to=onnx"
        )
    graph = onnx_file.graph(made)  # says so where [onnx] is not installed
    from vgg_jax.runs import html_page  # needs it too

    text = html_page.render(
        "classify.html",
        title=f"VGG {network.model.variant}: {made.network.model.num_classes} classes",
        facts={**_facts(made, engine.version), **(facts or {})},
        settings=_settings(made),
        blobs={
            "model": _packed(graph),
            "module": _packed(engine.module),
            "wasm": _packed(engine.wasm),
        },
    )
    with system_errors(path):
        write_atomically(path, text)


def _read_runtime(given: str | Path) -> _Runtime:
    here = Path.cwd()
    around = [folder / "node_modules" / PACKAGE for folder in (here, *here.parents)]
    for place in [Path(given)] if given else around:
        parts = ("package.json", f"dist/{_MODULE}", f"dist/{_WASM}")
        files = [place / part for part in parts]
        if all(file.is_file() for file in files):
            with system_errors(place):
                said, module, wasm = (file.read_bytes() for file in files)
            return _Runtime(json.loads(said)["version"], module, wasm)
    raise ConfigError(
        f"{PACKAGE} is not in {given or 'node_modules'}: npm install "
        f"{PACKAGE}@{VERSION}, or name its directory (--runtime=DIR)"
    )


def _settings(made: Classifier) -> dict[str, Any]:
    """Returns what the program of the page needs to know."""
    mean = made.network.preprocessing.mean
    grey = [round(255 * x) for x in mean] if len(mean) == 3 else [128] * 3
    names = made.network.class_names
    count = made.network.model.num_classes
    return {
        "size": made.size,
        "classes": names or [f"class {i}" for i in range(count)],
        "cover": grey,  # colour of the square of the occlusion map
    }


def _facts(made: Classifier, version: str) -> dict[str, str]:
    """Returns the network's card: what -> text."""
    network, model = made.network, made.network.model
    weights = sum(np.size(x) for x in jax.tree.leaves(network.variables["params"]))
    norm = ", batch norm" if model.batch_norm else ""
    rows = {
        "Network": f"VGG {model.variant}{norm}, {model.head} head",
        "Parameters": f"{weights:,}",
        "Images": f"{made.size} x {made.size} pixels",
        "Classes": f"{model.num_classes:,}",
        "Preprocessing": name_of(network.preprocessing),
        "Weights from": network.source.rstrip("/").rpartition("/")[2],
        "SHA-256": network.sha256,
        "Made by": f"vgg_jax {made.card()['version']}",
        "Run by": f"ONNX Runtime Web {version}, © Microsoft, MIT licence",
    }
    return {what: text for what, text in rows.items() if text}


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
