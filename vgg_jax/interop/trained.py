"""A run of this package, from its workdir or one of its checkpoints, as a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from vgg_jax.errors import ConfigError, RunError
from vgg_jax.interop import arrays, metadata
from vgg_jax.interop.network import HEAD, Network
from vgg_jax.nn.preprocessing import INIT, OWN, PREPROCESSING, Preprocessing
from vgg_jax.renamed import modern
from vgg_jax.runs import checkpoint_record, weights
from vgg_jax.runs.run_record import RunRecord
from vgg_jax.runs.workdir import CHECKPOINTS, CONFIG

_TRIES = 5  # at a checkpoint that a run replaces meanwhile
_SIZES = {"cifar10": 32, "cifar100": 32, "cifar10_sample": 32}  # pixels


def read(path: Path, which: str = "") -> Network:
    """Returns the network that a run trained, with the weights it is evaluated with.

    The model computes in the type in which the run did. The SHA-256 is that of the
    names, shapes and values of these arrays (`arrays.checksum`).

    Args:
        path: workdir of the run, or one of its checkpoints.
        which: "best" or "last", of a workdir; "": the one that the run is tested with.

    Raises:
        ConfigError: `which` is neither, or is given for a checkpoint.
        RunError: there is no such checkpoint, it is damaged, or not one of a VGG.
    """
    workdir, checkpoint, record, variables = _found(path, which)
    config = modern(record.config) if record.config else RunRecord(workdir).config
    data = record.data or _data(workdir)
    named: Any = flatten_dict(variables, sep="/")
    for name, array in named.items():
        if not np.isfinite(array).all():
            raise RunError(
                f"{checkpoint}: {name} holds NaN or infinity: it is of no use"
            )
    params = variables["params"]
    if HEAD not in params:
        raise RunError(f"{checkpoint} is no checkpoint of a VGG: it has no {HEAD}")
    num_classes = len(params[HEAD]["bias"])
    try:
        model = metadata.model({**config["model"], "num_classes": num_classes})
    except ConfigError as error:
        raise RunError(
            f"the config of {workdir} is of another version: {error}"
        ) from error
    classes = tuple(data.get("classes", ()))
    return Network(
        variables=jax.device_put(variables),
        model=model,
        preprocessing=_preprocessing(workdir, config, data, record.init),
        size=config["augment"]["resize"] or _SIZES.get(_name(config), 0),
        class_names=classes if len(classes) == num_classes else (),
        source=str(path),
        sha256=arrays.checksum(named),
    )


def _found(
    path: Path, which: str
) -> tuple[Path, Path, checkpoint_record.Record, dict[str, Any]]:
    """Returns the workdir, the checkpoint, its record and its variables.

    A run that goes on may replace the checkpoint meanwhile: then the next one is read.
    """
    for left in reversed(range(_TRIES)):
        workdir, checkpoint = _places(path, which)
        try:
            record = checkpoint_record.read(checkpoint)
            return workdir, checkpoint, record, weights.variables(checkpoint)
        except (RunError, FileNotFoundError):
            if checkpoint.exists() or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _places(path: Path, which: str) -> tuple[Path, Path]:
    """Returns the workdir and the checkpoint."""
    if not (path / CONFIG).exists():
        if which:
            raise ConfigError(
                f"checkpoint={which!r}, but {path} is one checkpoint: name its workdir"
            )
        return path.parent.parent, path
    config = RunRecord(path).config
    chosen = weights.checkpoint(
        path / CHECKPOINTS,
        which or config["test_with"],
        config["checkpoint"]["monitor"],
    )
    return path, chosen


def _data(workdir: Path) -> Mapping[str, Any]:
    """Returns what a finished run of version 0.1 says of its data set."""
    result = RunRecord(workdir).result or {}
    return result.get("data") or {"classes": result.get("classes", ())}


def _name(config: Mapping[str, Any]) -> str:
    return config["data"]["name"].partition(":")[0]


def _preprocessing(
    workdir: Path,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    init: Mapping[str, Any],
) -> Preprocessing:
    name = config["augment"]["normalize"]
    if name in PREPROCESSING:
        return PREPROCESSING[name]
    if name == INIT and init:
        return Preprocessing.from_json(init["preprocessing"])
    measured = data.get("statistics")
    if name != OWN or not measured:
        raise RunError(
            f"the run in {workdir} does not say what statistics its images were "
            f"normalised with (augment.normalize={name!r})"
        )
    return Preprocessing(tuple(measured["mean"]), tuple(measured["std"]))
