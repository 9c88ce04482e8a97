"""Names and layouts of a network's tensors in the files of each convention.

One table; reading and writing both go through it, so each is the other's inverse.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from vgg_jax.errors import choose
from vgg_jax.interop import layer_names, layouts
from vgg_jax.interop.layer_names import Named
from vgg_jax.interop.layouts import Layout
from vgg_jax.nn import architecture
from vgg_jax.nn.architecture import HEAD
from vgg_jax.nn.vgg import VGG

Shape = tuple[int | None, ...]  # None: a length that is decided elsewhere
COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; the networks have none

_TORCH = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Convention(NamedTuple):
    """How files of a convention call things.

    Attributes:
        module: the name of a layer, "" where the convention has no such layer.
        separator: between the name of a layer and that of an array.
        arrays: our name of an array -> the convention's.
        conv, hidden, last: layouts of kernels: of convolutions, of hidden dense layers
            and of the last one.
    """

    module: Callable[[Named], str]
    separator: str
    arrays: Mapping[str, str]
    conv: Layout
    hidden: Layout
    last: Layout


_OWN_ARRAYS = {name: name for name in _TORCH}
_OWN = Convention(
    lambda row: row.spec.name,
    separator="/",
    arrays=_OWN_ARRAYS,
    conv=layouts.OWN_CONV,
    hidden=layouts.OWN_DENSE,
    last=layouts.OWN_DENSE,
)
_TORCHVISION = Convention(
    lambda row: row.torchvision,
    separator=".",
    arrays=_TORCH,
    conv=layouts.OIHW,
    hidden=layouts.FLAT,
    last=layouts.FLAT,
)
CONVENTIONS = {
    "vgg_jax": _OWN,
    "torchvision": _TORCHVISION,
    "timm": _TORCHVISION._replace(module=lambda row: row.timm, hidden=layouts.MAPS),
    "keras": _OWN._replace(module=lambda row: row.keras),
}


class Tensor(NamedTuple):
    """A tensor of a file, and which array of the network it is.

    Attributes:
        name: in the file.
        collection, layer, array: of the network: `params`, `conv1_1`, `kernel`.
        shape: of the network's array.
        layout: of a kernel in the file; None for a vector.
        channels: see `Layout`.
    """

    name: str
    collection: str
    layer: str
    array: str
    shape: Shape
    layout: Layout | None
    channels: int


def tensors(
    model: VGG, convention: str, without: Collection[str] = ()
) -> tuple[Tensor, ...]:
    """Returns the tensors that a file of a network has, in the order of the layers.

    Args:
        model: the network.
        convention: one of `CONVENTIONS`.
        without: weight layers that the file lacks: all or the end of a head.

    Raises:
        ConfigError: `convention` is unknown.

    >>> row = tensors(VGG("D"), "torchvision")[-2]
    >>> row.name, row.layer, row.shape
    ('classifier.6.weight', 'fc8', (4096, 1000))
    """
    known = choose(CONVENTIONS, convention, "convention")
    rows = layer_names.table(model)
    flattened, channels = architecture.head_input(layer_names.specs(model))
    return tuple(
        tensor
        for row in rows
        if row.spec.name not in without
        for tensor in _OF_KIND.get(row.spec.kind, _none)(
            model,
            _Layer(
                _named_by_relu(row, rows),
                known,
                channels if row.spec.name == flattened else 0,
            ),
        )
    )


class _Layer(NamedTuple):
    """A layer of a network in a convention.

    Attributes:
        row: its names.
        convention: of the file.
        map_channels: of the map that it flattens; 0 if it flattens none.
    """

    row: Named
    convention: Convention
    map_channels: int

    def tensor(self, array: str, shape: Shape, **known) -> Tensor:
        """Returns the entry of one of its arrays."""
        convention = self.convention
        module = convention.module(self.row)
        name = f"{module}{convention.separator}{convention.arrays[array]}"
        defaults = {"collection": "params", "layout": None, "channels": 0}
        return Tensor(
            name, layer=self.row.spec.name, array=array, shape=shape, **defaults | known
        )


def _named_by_relu(row: Named, rows: tuple[Named, ...]) -> Named:
    """Keras calls a layer and the ReLU after it by one name, which the ReLU has."""
    relu = row.spec.name.replace("conv", "relu").replace("fc", "relu")
    named = (other.keras for other in rows if other.spec.name == relu)
    return row._replace(keras=row.keras or next(named, ""))


def _none(model: VGG, layer: _Layer) -> Iterator[Tensor]:
    del model, layer
    return iter(())


def _conv(model: VGG, layer: _Layer) -> Iterator[Tensor]:
    del model
    spec = layer.row.spec
    inputs = None if spec.name == "conv1_1" else spec.inputs  # grey, RGB, ...
    shape = spec.kernel, spec.kernel, inputs, spec.channels
    yield layer.tensor("kernel", shape, layout=layer.convention.conv)
    yield layer.tensor("bias", (spec.channels,))


def _batch_norm(model: VGG, layer: _Layer) -> Iterator[Tensor]:
    shape = (layer.row.spec.channels,)
    if model.norm_scale:
        yield layer.tensor("scale", shape)
    yield layer.tensor("bias", shape)
    yield layer.tensor("mean", shape, collection="batch_stats")
    yield layer.tensor("var", shape, collection="batch_stats")


def _dense(model: VGG, layer: _Layer) -> Iterator[Tensor]:
    spec, convention = layer.row.spec, layer.convention
    any_size = layer.map_channels and model.head == "paper"
    yield layer.tensor(
        "kernel",
        (None if any_size else spec.inputs, spec.channels),
        layout=convention.last if spec.name == HEAD else convention.hidden,
        channels=layer.map_channels or spec.inputs,
    )
    yield layer.tensor("bias", (spec.channels,))


_OF_KIND = {"conv": _conv, "batch_norm": _batch_norm, "dense": _dense}


def fixed(model: VGG, convention: str) -> dict[str, tuple[int, ...]]:
    """Returns shapes of tensors that PyTorch's files have and the network has not.

    By name: the counters of batch norm, which inference does not use; and its scales,
    where the network learns none: ones.

    >>> fixed(VGG("conv3-8 |", batch_norm=True, norm_scale=False), "timm")
    {'features.1.num_batches_tracked': (), 'features.1.weight': (8,)}
    """
    known = choose(CONVENTIONS, convention, "convention")
    if known.arrays is not _TORCH:
        return {}
    extra = {}
    for row in layer_names.table(model):
        if row.spec.kind == "batch_norm":
            extra[f"{known.module(row)}.{COUNTER}"] = ()
            if not model.norm_scale:
                extra[f"{known.module(row)}.weight"] = (row.spec.channels,)
    return extra
