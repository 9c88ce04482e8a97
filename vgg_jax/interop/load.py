"""A network from wherever it is: a file, a run of this package, the hub."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vgg_jax.errors import ConfigError, RunError, system_errors
from vgg_jax.fields import check_value, in_range
from vgg_jax.interop import hub, network_file, zoo
from vgg_jax.interop.network import HEAD, Network
from vgg_jax.interop.network_file import check_preprocessing, check_variant
from vgg_jax.interop.weights_file import READERS
from vgg_jax.nn.initializers import INITIALIZERS
from vgg_jax.nn.preprocessing import Preprocessing, named

CONFIG, STATE = "config.json", "state"  # what a workdir and a checkpoint hold


class _Wanted(NamedTuple):
    """What the caller of `load` says of a source."""

    preprocessing: Preprocessing | None
    variant: str
    checkpoint: str


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    preprocessing: str | Preprocessing | None = None,
    variant: str = "",
    seed: int = 0,
    checkpoint: str = "",
) -> Network:
    """Returns a network with its weights and all that belongs to them.

    Args:
        source: one of
            a name of the zoo (`zoo.cards`), such as "speedrun"; a file or directory of
            that name is "./speedrun", or a `Path`;
            a file of torchvision's or timm's names, `.safetensors`, or `.pth`, `.pt`
            and `.bin` where PyTorch is installed; of Keras, `.weights.h5`, `.h5` or
            `.hdf5`, where h5py is (`pip install 'vgg_jax[interop]'`); or one that
            `save` wrote;
            the workdir of a run, finished or not, or one of its checkpoints;
            `hf://owner/name/file`, fetched from the Hugging Face hub where
            huggingface_hub is installed; nothing else is fetched.
            Configuration, batch norm, widths and head of a file are read off its names
            and shapes.
        num_classes: another number than the source's replaces `fc8` by a new, random
            one, which `Network.random_layers` names; None keeps the source's.
        preprocessing: what the network expects of its images, where the source does not
            say: a network of torchvision's or Keras' names with other classes than
            ImageNet's 1,000, or none.
        variant: the configuration that it must be; "": whichever it is. LRN leaves no
            trace in a file of another program: "A-LRN" is A's weights with it.
        seed: of a random `fc8`.
        checkpoint: of a run, "best" or "last"; "": the one that it is tested with.

    Returns:
        float32 weights; those that a run is tested with, where it averages them.
        `source` and `sha256` say where they are from; a file that `save` wrote keeps
        those of the network that it was given.

    Raises:
        ConfigError: an argument is wrong, or contradicts the source.
        RunError: the source cannot be read, or it is another network: a tensor of it
            would not be used (only PyTorch's `num_batches_tracked` may), or one is
            missing, has another shape, is not floating-point or not finite.
    """
    if num_classes is not None:
        check_value("num_classes", num_classes, int, in_range(1))
    for name, value in (("variant", variant), ("checkpoint", checkpoint)):
        check_value(name, value, str, None)
    if preprocessing is not None:
        preprocessing = named(preprocessing)
    wanted = _Wanted(preprocessing, variant, checkpoint)
    with system_errors(source):
        read = next(read for matches, read in _SOURCES if matches(source))
        network = read(str(source), wanted)
    if num_classes in (None, network.model.num_classes) and _has_head(network):
        return network
    return network if num_classes is None else with_head(network, num_classes, seed)


def _has_head(network: Network) -> bool:
    return HEAD in network.variables["params"]


def _head_inputs(network: Network) -> int:
    """Returns the number of values that `fc8` sees."""
    params = network.variables["params"]
    if _has_head(network):
        return params[HEAD]["kernel"].shape[0]
    *needed, _ = network.layers_until(HEAD)
    if missing := [layer for layer in needed if layer not in params]:
        raise ConfigError(
            f"{network.source} has no {', '.join(missing)}, and num_classes= makes a "
            f"new {HEAD} only"
        )
    return params[needed[-1]]["bias"].shape[0]


def with_head(network: Network, num_classes: int, seed: int = 0) -> Network:
    """Returns the network with a new, random `fc8`, which `random_layers` names.

    Args:
        network: the layers before it.
        num_classes: width of the new one.
        seed: of its weights.

    Raises:
        ConfigError: the network lacks other layers, too.

    >>> from vgg_jax.interop.network import random
    >>> from vgg_jax.nn.vgg import VGG
    >>> network = random(VGG("conv3-8 |", 10, head="compact"), "unit")
    >>> with_head(network, 4).variables["params"]["fc8"]["kernel"].shape
    (8, 4)
    """
    model = network.model.clone(num_classes=num_classes)
    init = INITIALIZERS[model.kernel_init][1]
    shape = _head_inputs(network), num_classes
    head = {
        "kernel": init(jax.random.key(seed), shape, jnp.float32),
        "bias": jnp.zeros(num_classes),
    }
    params = {**network.variables["params"], HEAD: head}
    others = (layer for layer in network.random_layers if layer != HEAD)
    return network.replace(
        variables={**network.variables, "params": params},
        model=model,
        class_names=(),
        random_layers=(*others, HEAD),
    )


def _of_hub(source: str, wanted: _Wanted) -> Network:
    path = hub.fetch(source)
    network = _of_file(str(path), wanted)
    return network.replace(source=source) if network.source == str(path) else network


def _of_zoo(source: str, wanted: _Wanted) -> Network:
    network = _of_file(str(zoo.path(source)), wanted)
    return network.replace(source=f"zoo/{source}", sha256=zoo.cards()[source].sha256)


def _of_run(source: str, wanted: _Wanted) -> Network:
    try:
        from vgg_jax.interop import trained
    except ImportError as error:
        raise RunError(
            f"{source} is a run, and reading its checkpoints needs {error.name}, which "
            "is not installed here: pip install 'vgg_jax[train]'"
        ) from error
    network = trained.read(Path(source), wanted.checkpoint)
    check_preprocessing(source, network.preprocessing, wanted.preprocessing)
    check_variant(source, network.model.variant, wanted.variant)
    return network


def _of_directory(source: str, wanted: _Wanted) -> Network:
    del wanted
    files = [x.name for x in sorted(Path(source).iterdir()) if x.suffix in READERS]
    raise RunError(
        f"{source} is a directory, and no run's workdir or checkpoint: name a file of "
        f"weights{f', {files[0]} in it perhaps' if files else ''}"
    )


def _of_file(source: str, wanted: _Wanted) -> Network:
    if wanted.checkpoint:
        raise ConfigError(
            f"checkpoint={wanted.checkpoint!r} is of a run, and {source} is none"
        )
    return network_file.read(Path(source), wanted.preprocessing, wanted.variant)


def _is_run(source: str | Path) -> bool:
    """Returns whether it is a workdir or a checkpoint; a torn config may be a run's."""
    config = os.path.join(source, CONFIG)
    if not os.path.isfile(config):
        return os.path.isdir(os.path.join(source, STATE))
    try:
        said = json.loads(Path(config).read_bytes())
    except ValueError:
        return True
    return isinstance(said, dict) and isinstance(said.get("model"), dict)


# What tells a kind of source -> what reads it; the first that matches.
_SOURCES: tuple[
    tuple[Callable[[str | Path], bool], Callable[[str, _Wanted], Network]], ...
] = (
    (lambda source: str(source).startswith(hub.PREFIX), _of_hub),
    (lambda source: source in zoo.cards(), _of_zoo),
    (_is_run, _of_run),
    (os.path.isdir, _of_directory),
    (lambda source: True, _of_file),
)
