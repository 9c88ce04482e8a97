"""The zoo: networks trained here, by name, each with a card.

A card says what was trained how, and what `vgg evaluate --weights=NAME` prints. Small
networks come with the package; all of them with a checkout of the repository.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import vgg_jax
from vgg_jax.errors import RunError

DEFAULT = "speedrun"  # what commands use where no weights are named


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a network of the zoo.

    Attributes:
        title: what it is, in a line.
        dataset: name of the data set.
        accuracy: number of views of an image (`nn.views`), as text -> share of
            the test split's images whose label is the first guess, in [0, 1].
        views: number of views of its recipe.
        command: what trained it.
        seed: of the training.
        commit: of the repository that trained it.
        hardware: what trained it.
        log: of the training, a path in the repository.
        parameters: their number.
        dtype: of the weights in the file.
        bytes: size of the file.
        sha256: of the file.
    """

    title: str
    dataset: str
    accuracy: Mapping[str, float]
    views: int
    command: str
    seed: int
    commit: str
    hardware: str
    log: str
    parameters: int
    dtype: str
    bytes: int
    sha256: str


def directory() -> Path:
    """Returns the directory of the zoo: in the package, or beside it in a checkout."""
    package = Path(vgg_jax.__file__).parent
    inside = package / "zoo"
    return inside if inside.is_dir() else package.parent / "zoo"


@functools.cache
def cards() -> dict[str, Card]:
    """Returns name -> card, the most accurate first.

    Raises:
        RunError: a card is damaged.

    >>> "speedrun" in cards()
    True
    """
    found = {}
    for file in sorted(directory().glob("*.json")):
        try:
            found[file.stem] = Card(**json.loads(file.read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise RunError(f"{file} is no card of the zoo: {error}") from error
    best = lambda name: max(found[name].accuracy.values())
    return {name: found[name] for name in sorted(found, key=best, reverse=True)}


def path(name: str) -> Path:
    """Returns the file of a network, which is the one of its card.

    Raises:
        RunError: its weights are not here: a package holds the small ones only; or they
            are damaged.

    >>> path("speedrun").name
    'speedrun.safetensors'
    """
    file, card = directory() / f"{name}.safetensors", cards()[name]
    if not file.exists():
        raise RunError(
            f"{name} ({card.bytes / 1e6:.0f} MB) does not come with the package: clone "
            f"the repository and name its zoo/{file.name}"
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != card.sha256:
        raise RunError(
            f"{file} is damaged: its SHA-256 is {found}, not {card.sha256} as its card "
            "says: get it anew"
        )
    return file
