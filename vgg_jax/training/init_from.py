"""Where a run starts from: the layers of a network that is there, by their names."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from vgg_jax.errors import ConfigError
from vgg_jax.fields import Rule, check, field
from vgg_jax.interop.load import load
from vgg_jax.interop.network import HEAD, Network
from vgg_jax.nn import patterns
from vgg_jax.nn.preprocessing import OWN, PREPROCESSING, Preprocessing, name_of
from vgg_jax.nn.vgg import VGG
from vgg_jax.runs import workdir
from vgg_jax.training import step

_SHOWN = 3  # parameters that a message names
# What may differ between two networks with the same parameters, or explains why they
# differ.
_COMPARED = (
    *("variant", "width", "batch_norm", "norm_scale", "head", "hidden"),
    *("pool", "pool_early", "logit_scale"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The weights that a run starts from.

    Attributes:
        path: whatever `interop.load.load` reads, a run's workdir or a file; "": random
            weights.
        layers: patterns for the layers or parameters to take (`patterns.matches`); the
            others stay random.
    """

    path: str = ""
    layers: Sequence[str] = field(("*",), Rule(bool, "at least one pattern"))

    def __post_init__(self) -> None:
        check(self)


class Taken(NamedTuple):
    """Weights, some of them another network's.

    Attributes:
        params, batch_stats: as the network's own.
        arrays: number of arrays that are the other network's.
        new: layers of which some parameter is not.
    """

    params: dict
    batch_stats: dict
    arrays: int
    new: tuple[str, ...]


def take(
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    network: Network,
    layers: Sequence[str] = ("*",),
) -> Taken:
    """Returns the weights with a network's in the place of those of the same name.

    The running averages of a batch norm come with its parameters.

    Args:
        params: parameters, by layer and name.
        batch_stats: running averages, likewise.
        network: the one to take from.
        layers: as `Init.layers`.

    Raises:
        ConfigError: a pattern is for none of its parameters; or one that is chosen has
            another shape here, or is not here, or is random there.
    """
    theirs = flatten_dict(network.variables["params"], sep="/")
    chosen = patterns.chosen(theirs, layers, "init.layers")
    own = flatten_dict(params, sep="/")
    _check_shapes(own, {name: theirs[name] for name in theirs if name in chosen})
    from_layers = {name.rpartition("/")[0] for name in chosen}
    if random := sorted(from_layers.intersection(network.random_layers)):
        raise ConfigError(
            f"its {_some(random)} {_are(random)} random: nobody trained it; leave it "
            "out of init.layers"
        )
    stats = flatten_dict(batch_stats, sep="/")
    moved = flatten_dict(network.variables.get("batch_stats", {}), sep="/")
    moved = {n: moved[n] for n in stats if n.rpartition("/")[0] in from_layers}
    taken = {n: theirs[n] for n in own if n in chosen}
    return Taken(
        params=unflatten_dict(own | taken, sep="/"),
        batch_stats=unflatten_dict(stats | moved, sep="/"),
        arrays=len(taken) + len(moved),
        new=tuple(dict.fromkeys(n.rpartition("/")[0] for n in own if n not in chosen)),
    )


def _check_shapes(own: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Checks that all that is chosen of the other network has its place here."""
    if missing := [name for name in chosen if name not in own]:
        raise ConfigError(f"its {_some(missing)} {_are(missing)} not in this network")
    other = [name for name in chosen if chosen[name].shape != own[name].shape]
    if not other:
        return
    if {name.rpartition("/")[0] for name in other} == {HEAD}:
        _tell_head(own, chosen)
    name = min(other, key=lambda name: not name.endswith("/kernel"))
    more = f" (and {len(other) - 1} more differ)" if len(other) > 1 else ""
    raise ConfigError(
        f"its {name} is {list(chosen[name].shape)} and this network's "
        f"{list(own[name].shape)}{more}"
    )


def _tell_head(own: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Raises an error that names the number of classes, if that is what differs."""
    kernel = f"{HEAD}/kernel"
    shapes = [params[kernel].shape for params in (chosen, own) if kernel in params]
    if len(shapes) < 2 or shapes[0][0] != shapes[1][0]:
        return
    layers = [name.rpartition("/")[0] for name in chosen]
    kinds = ("conv", "bn")
    kept = [f"{kind}*" for kind in kinds if any(x.startswith(kind) for x in layers)]
    kept += [x for x in dict.fromkeys(layers) if x[:2] == "fc" and x != HEAD]
    raise ConfigError(
        f"it has {shapes[0][1]} classes and this run {shapes[1][1]}: for a new {HEAD}, "
        f'--config.init.layers="{tuple(kept)}"'
    )


def _some(names: Collection[str]) -> str:
    shown, more = list(names)[:_SHOWN], len(names) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _are(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def differences(network: VGG, own: VGG) -> str:
    """Returns the fields of a network that differ from one's own, as a config says it.

    >>> differences(VGG("A", pool="average"), VGG("D"))
    "model.variant='A' (here 'D'), model.pool='average' (here 'max')"
    """
    pairs = ((name, getattr(network, name), getattr(own, name)) for name in _COMPARED)
    said = [f"model.{n}={a!r} (here {b!r})" for n, a, b in pairs if a != b]
    return ", ".join(said)


class Start(NamedTuple):
    """The network that a run starts from.

    A run that has saved itself does not need it: its checkpoints are complete, and keep
    `facts`.

    Attributes:
        network: None where the run starts from random weights, or was saved.
        facts: "path", "sha256" and "preprocessing" of the network; {} without one.
    """

    network: Network | None = None
    facts: Mapping[str, Any] = {}

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the network expects of its images; None without one."""
        if not self.facts:
            return None
        return Preprocessing.from_json(self.facts["preprocessing"])


def find(init: Init, path: Path, normalize: str) -> Start:
    """Reads what a run starts from; of a run that was saved, only what it keeps of it.

    Args:
        init: of the config.
        path: workdir of the run.
        normalize: of the config; a name in `PREPROCESSING` says what a file expects
            that does not say so itself.

    Raises:
        ConfigError, RunError: as `load`, or the network expects other images than
            `normalize` says.
    """
    if not init.path:
        return Start()
    if recorded := workdir.newest(path).init:
        return Start(facts=recorded)
    try:
        network = load(init.path, preprocessing=PREPROCESSING.get(normalize))
    except ConfigError as error:
        here = " (in a config, augment.normalize is it)"
        told = here if "preprocessing=" in str(error) else ""
        raise ConfigError(f"{error}{told}") from error
    if normalize == OWN:
        raise ConfigError(
            f"augment.normalize={OWN!r}, and the network of init.path={init.path} "
            f"expects {name_of(network.preprocessing)}: leave it at auto"
        )
    facts = {
        "path": init.path,
        "sha256": network.sha256,
        "preprocessing": network.preprocessing.to_json(),
    }
    return Start(network, facts)


def started(
    init: Init, network: Network, recipe: step.Recipe, state: step.TrainState
) -> tuple[step.TrainState, str]:
    """Returns the state before the first update, and the line that says what was taken.

    Raises:
        ConfigError: as `take`, in one line that names the file.
    """
    other = differences(network.model, recipe.model)
    there = f"; there, {other}" if other else ""
    try:
        taken = take(state.params, state.batch_stats, network, init.layers)
    except ConfigError as error:
        raise ConfigError(f"init.path={init.path}: {error}{there}") from error
    total = len(jax.tree.leaves((taken.params, taken.batch_stats)))
    said = (
        f"init: {taken.arrays} of {total} arrays from {init.path} (sha256 "
        f"{network.sha256[:12]}), new: {', '.join(taken.new) or 'none'}{there}"
    )
    return step.with_weights(recipe, state, taken.params, taken.batch_stats), said
