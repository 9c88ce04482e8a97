"""A network as StableHLO: one file that any JAX runs, without this package.

The file is a zip, so that the program and what belongs to it stay together and a few
lines of the standard library read them: `program.stablehlo` is what
`jax.export.Exported.serialize` returns, weights inside; `card.json` holds the names of
the classes, the preprocessing (which the program does itself) and where the weights are
from. JAX promises to read it for six months at least; the tests here keep one for good.
"""

import contextlib
import importlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
from jax import export

from vgg_jax.errors import ConfigError, system_errors
from vgg_jax.files import check_target, write_atomically
from vgg_jax.interop.classifier import Classifier, classifier
from vgg_jax.interop.network import Network

PLATFORMS = ("cpu", "cuda", "tpu")
SUFFIX = ".zip"
PROGRAM, CARD = "program.stablehlo", "card.json"
_PLACES = "jax_traceback_in_locations_limit"
_DATE = (1980, 1, 1, 0, 0, 0)  # of the parts: the same network, the same bytes


def save(
    network: Network, path: str | Path, *, size: int = 0, overwrite: bool = False
) -> None:
    """Writes a program that classifies images, on CPU, CUDA and TPU.

    It takes uint8 `[B, H, W, C]`, any number of images B, and returns probabilities,
    float32 `[B, num_classes]`.

    Args:
        network: with a head.
        path: ends in `.zip`.
        size: height and width of the images; 0: those the network was trained on.
        overwrite: whether a file that is there is replaced.

    Raises:
        ConfigError: the file is there; flatbuffers is not installed; or the network
            cannot be exported (`classifier.classifier`).
        RunError: the file cannot be written.
    """
    path = Path(path)
    check_target(path, SUFFIX, overwrite)
    made = classifier(network, size=size)
    content = _zipped({PROGRAM: program(made), CARD: json.dumps(made.card(), indent=1)})
    with system_errors(path):
        write_atomically(path, content)


def program(made: Classifier) -> bytes:
    """Returns the serialised program.

    Raises:
        ConfigError: flatbuffers is not installed.
    """
    try:
        importlib.import_module("flatbuffers")  # what jax.export writes with
    except ModuleNotFoundError as error:
        raise ConfigError(
            "StableHLO needs flatbuffers, which is not installed here: "
            "pip install 'vgg_jax[export]'"
        ) from error
    (count,) = export.symbolic_shape("B")
    images = jax.ShapeDtypeStruct((count, *made.image_shape), "uint8")
    probabilities = jax.jit(lambda images: made(images)[1])
    with _without_places():
        exported = export.export(probabilities, platforms=PLATFORMS)(images)
        return bytes(exported.serialize())


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Leaves out of programs where in which source file each operation is from.

    That would be paths of this machine, and other bytes after every change of a line.
    """
    before = jax.config.values[_PLACES]
    jax.config.update(_PLACES, 0)
    try:
        yield
    finally:
        jax.config.update(_PLACES, before)


def _zipped(parts: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()
