"""A file of weights, from this package or another one, as a network."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.interop import architecture_of, arrays, layer_names, metadata, weights_file
from vgg_jax.interop.architecture_of import Inferred
from vgg_jax.interop.network import Network
from vgg_jax.interop.weights_file import WeightsFile
from vgg_jax.nn import architecture
from vgg_jax.nn.preprocessing import PREPROCESSING, Preprocessing, name_of

# What networks of a convention expect that know ImageNet's 1,000 classes.
_OF_IMAGENET = {"torchvision": "imagenet", "timm": "imagenet", "keras": "keras"}
_IMAGENET_CLASSES, _IMAGENET_SIZE = 1000, 224  # pixels
_PREFIX = "module."  # of the names in a file of PyTorch's `DataParallel`


def read(path: Path, preprocessing: Preprocessing | None, variant: str) -> Network:
    """Returns the network in a file; see `load.load`."""
    file = weights_file.read(path)
    network = (_own if metadata.KEY in file.metadata else _foreign)(
        file, preprocessing, variant
    )
    channels, known = network.channels, len(network.preprocessing.mean)
    if known not in (1, channels):
        raise ConfigError(
            f"preprocessing={name_of(network.preprocessing)!r} is for {known} "
            f"channels, and {path} for {channels}"
        )
    return network


def _own(
    file: WeightsFile, preprocessing: Preprocessing | None, variant: str
) -> Network:
    try:
        said = metadata.loads(file.metadata[metadata.KEY])
    except ValueError as error:
        raise RunError(
            f"{file.path} is {metadata.cause(file.metadata[metadata.KEY])}: its "
            f"metadata are wrong ({error})"
        ) from error
    if arrays.checksum(file.tensors) != said.tensors_sha256:
        raise RunError(
            f"{file.path} was changed after it was saved: the SHA-256 of its tensors "
            "is not the one that it names"
        )
    check_preprocessing(file.path, said.network.preprocessing, preprocessing)
    check_variant(file.path, said.network.model.variant, variant)
    inferred = Inferred(said.convention, said.network.model, said.without)
    return said.network.replace(
        variables=_variables(file, inferred),
        source=said.network.source or str(file.path),
        sha256=said.network.sha256 or file.sha256,
    )


def _foreign(
    file: WeightsFile, preprocessing: Preprocessing | None, variant: str
) -> Network:
    file = file._replace(tensors=_full_names(file.tensors))
    try:
        inferred = architecture_of.infer({n: a.shape for n, a in file.tensors.items()})
        model = inferred.model
    except (RunError, ConfigError) as error:
        raise RunError(f"{file.path} {error}") from error
    variables = _variables(file, inferred)
    if variant:
        check_variant(file.path, model.variant, variant, says_lrn=False)
        inferred = inferred._replace(model=model.clone(variant=variant))
    of_imagenet = not inferred.without and model.num_classes == _IMAGENET_CLASSES
    if preprocessing is None:
        if not of_imagenet:
            raise ConfigError(_unknown_preprocessing(file.path, inferred))
        preprocessing = PREPROCESSING[_OF_IMAGENET[inferred.convention]]
    return Network(
        variables=variables,
        model=inferred.model,
        preprocessing=preprocessing,
        size=_size(inferred, variables, of_imagenet),
        source=str(file.path),
        sha256=file.sha256,
    )


def _full_names(tensors: arrays.Arrays) -> dict[str, Any]:
    """Returns tensors under the names that `vgg.state_dict()` gives them.

    `vgg.features.state_dict()` lacks the `features.`.
    """
    if tensors and all(name.startswith(_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_PREFIX): x for name, x in tensors.items()}
    if "0.weight" in tensors:
        tensors = {f"features.{name}": x for name, x in tensors.items()}
    return dict(tensors)


def _variables(file: WeightsFile, inferred: Inferred) -> dict[str, Any]:
    convention, model, without = inferred
    try:
        read = arrays.to_variables(file.tensors, model, convention, without)
    except (RunError, ConfigError) as error:
        raise RunError(f"{file.path} {error}") from error
    return jax.device_put(read)


def _unknown_preprocessing(path: Path, inferred: Inferred) -> str:
    what = f"has {inferred.model.num_classes:,} classes, not ImageNet's 1,000"
    if inferred.without:
        what = f"has no {inferred.without[-1]}"
    return (
        f"{path} does not say what images it was trained on, and {what}: say "
        f"preprocessing=, one of {', '.join(PREPROCESSING)}, or a Preprocessing"
    )


def _size(inferred: Inferred, variables: dict[str, Any], of_imagenet: bool) -> int:
    """Returns the side in pixels of the images that it was trained on, or 0."""
    model, params = inferred.model, variables["params"]
    if model.head != "paper":
        return _IMAGENET_SIZE if of_imagenet else 0
    first, channels = architecture.head_input(layer_names.specs(model))
    area = params[first]["kernel"].shape[0] // channels
    side = math.isqrt(area)
    return side * architecture.least_size(model.variant) if side * side == area else 0


def check_preprocessing(
    source: object, known: Preprocessing, wanted: Preprocessing | None
) -> None:
    """Checks that what a caller says agrees with what is recorded.

    Raises:
        ConfigError: it does not.
    """
    if wanted is not None and wanted != known:
        raise ConfigError(
            f"preprocessing={name_of(wanted)!r}, but {source} was trained with "
            f"{name_of(known)!r}: leave preprocessing out"
        )


def check_variant(
    source: object, known: str, wanted: str, says_lrn: bool = True
) -> None:
    """Checks that the configuration that a caller names, if any, is the known one.

    Args:
        source: of the network.
        known: its configuration.
        wanted: the caller's; "": whichever it is.
        says_lrn: whether the source says if there is LRN, which has no weights.

    Raises:
        ConfigError: it is another.
    """
    if wanted and _layers(known, says_lrn) != _layers(wanted, says_lrn):
        raise ConfigError(
            f"variant={wanted!r}, but {source} is of configuration {known}"
        )


def _layers(variant: str, lrn: bool) -> Sequence[Sequence[str]]:
    stages = architecture.stages(variant)
    return [[layer for layer in stage if lrn or layer != "LRN"] for stage in stages]
