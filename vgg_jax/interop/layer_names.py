"""Names of layers in every convention: the paper's, torchvision's, timm's, Keras'.

One walk over the layers, in which each convention calls them its own way. torchvision
and timm number the modules of `features` in order. Keras names a convolution after its
stage and gives its activation after ReLU, so its `block3_conv3` is our `relu3_3`.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vgg_jax.errors import ConfigError
from vgg_jax.nn import architecture
from vgg_jax.nn.architecture import LayerSpec
from vgg_jax.nn.vgg import VGG

_NAMELESS = ("flatten", "average", "dropout")  # kinds without an activation to ask for
_TIMM_HEAD = {
    "fc6": "pre_logits.fc1",
    "relu6": "pre_logits.act1",
    "fc7": "pre_logits.fc2",
    "relu7": "pre_logits.act2",
    "fc8": "head.fc",
}
_KERAS_HEAD = {"relu6": "fc1", "relu7": "fc2", "fc8": "predictions"}
_SIDE = 224  # pixels; the names do not depend on it


class Named(NamedTuple):
    """A layer and what each convention calls it; empty where it has no name for it.

    Attributes:
        spec: the layer; its name is the paper's.
        torchvision: of its module: `features.15`, `classifier.0`.
        timm: of its module: `features.15`, `pre_logits.fc1`.
        keras: of the layer whose output is the same: `block3_conv3`.
    """

    spec: LayerSpec
    torchvision: str
    timm: str
    keras: str


def table(model: VGG) -> tuple[Named, ...]:
    """Returns the layers of a network that have an activation, in order.

    >>> for row in table(VGG("D")):
    ...     if row.spec.name in ("relu3_3", "pool5", "relu6", "fc8"):
    ...         print(*row[1:])
    features.15 features.15 block3_conv3
    features.30 features.30 block5_pool
    classifier.1 pre_logits.act1 fc1
    classifier.6 head.fc predictions
    """
    return tuple(_rows(specs(model)))


def specs(model: VGG) -> tuple[LayerSpec, ...]:
    """Returns the layers of a network, on images that are large enough."""
    side = max(_SIDE, architecture.least_size(model.variant))
    return model.layers((side, side))


def _rows(specs: Sequence[LayerSpec]) -> Iterator[Named]:
    ends = next(
        i for i, spec in enumerate(specs) if spec.kind in architecture.HEAD_BEGINS
    )
    for i, spec in enumerate(specs[:ends]):
        module = f"features.{i}"
        yield Named(spec, module, module, _keras(spec))
    dense = [spec.name for spec in specs if spec.kind == "dense"]
    for spec in specs[ends:]:
        if spec.kind == "adaptive_average":
            yield Named(spec, "avgpool", "", "")
        elif spec.kind not in _NAMELESS:
            place = 3 * dense.index(f"fc{spec.stage}") + (spec.kind == "relu")
            module = f"classifier.{place}" if len(dense) > 1 else "classifier"
            timm = _TIMM_HEAD[spec.name] if len(dense) == 3 else ""
            yield Named(spec, module, timm, _KERAS_HEAD.get(spec.name, ""))


def _keras(spec: LayerSpec) -> str:
    if spec.kind == "relu":
        return "block{}_conv{}".format(*spec.name.removeprefix("relu").split("_"))
    return f"block{spec.stage}_pool" if spec.kind == "pool" else ""


def _known(model: VGG) -> Mapping[str, str]:
    """Returns our name for every name in any convention."""
    rows, known = table(model), {}
    for convention in ("keras", "timm", "torchvision"):
        known |= {getattr(row, convention): row.spec.name for row in rows}
    known.pop("", None)
    return known | {row.spec.name: row.spec.name for row in rows}


def resolve(model: VGG, name: str) -> str:
    """Returns our name of a layer, from its name in any convention.

    Args:
        model: the network.
        name: the paper's `relu3_3` or `conv3_3`, torchvision's and timm's
            `features.15`, Keras' `block3_conv3`.

    Raises:
        ConfigError: the network has no such layer.

    >>> resolve(VGG("D"), "block3_conv3"), resolve(VGG("D"), "features.15")
    ('relu3_3', 'relu3_3')
    >>> resolve(VGG("D", batch_norm=True), "features.15")
    'bn3_1'
    >>> resolve(VGG("D"), "relu3_4")
    Traceback (most recent call last):
    vgg_jax.errors.ConfigError: layer='relu3_4' is unknown in configuration D: did you \
mean relu3_3, relu3_2 or relu3_1?
    """
    known = _known(model)
    if isinstance(name, str) and name in known:
        return known[name]
    own = [row.spec.name for row in table(model)]
    similar = difflib.get_close_matches(str(name), [*own, *known], n=6)
    shown = list(dict.fromkeys(similar))[:3] or own
    *first, last = shown
    text = f"{', '.join(first)} or {last}" if first else last
    raise ConfigError(
        f"layer={name!r} is unknown in configuration {model.variant}: did you mean "
        f"{text}?"
    )


def resolve_all(model: VGG, layers: Sequence[str]) -> dict[str, str]:
    """Returns our names of layers, by the names that are given.

    Raises:
        ConfigError: `layers` are no names, or one is unknown (`resolve`).

    >>> resolve_all(VGG("D"), ["block3_conv3", "fc7"])
    {'block3_conv3': 'relu3_3', 'fc7': 'fc7'}
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise ConfigError(f"layers={layers!r} must be names of layers: ('relu3_3',)")
    ours = [resolve(model, name) for name in layers]
    return dict(zip(layers, ours, strict=True))
