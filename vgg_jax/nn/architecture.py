"""Table 1 of Simonyan & Zisserman (2014), its notation, and the one walk of it.

Everything that needs to know a network's layers iterates `layers`: the Flax module, the
cost table, the summary. Nothing else parses `conv3-64`.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vgg_jax.errors import ConfigError, choose

# The paper's own notation: conv<kernel size>-<channels>, "|" a 2x2 max-pool.
CONFIGURATIONS = {
    "A": """conv3-64 | conv3-128 | conv3-256 conv3-256 |
        conv3-512 conv3-512 | conv3-512 conv3-512 |""",
    "A-LRN": """conv3-64 LRN | conv3-128 | conv3-256 conv3-256 |
        conv3-512 conv3-512 | conv3-512 conv3-512 |""",
    "B": """conv3-64 conv3-64 | conv3-128 conv3-128 | conv3-256 conv3-256 |
        conv3-512 conv3-512 | conv3-512 conv3-512 |""",
    "C": """conv3-64 conv3-64 | conv3-128 conv3-128 |
        conv3-256 conv3-256 conv1-256 | conv3-512 conv3-512 conv1-512 |
        conv3-512 conv3-512 conv1-512 |""",
    "D": """conv3-64 conv3-64 | conv3-128 conv3-128 |
        conv3-256 conv3-256 conv3-256 | conv3-512 conv3-512 conv3-512 |
        conv3-512 conv3-512 conv3-512 |""",
    "E": """conv3-64 conv3-64 | conv3-128 conv3-128 |
        conv3-256 conv3-256 conv3-256 conv3-256 |
        conv3-512 conv3-512 conv3-512 conv3-512 |
        conv3-512 conv3-512 conv3-512 conv3-512 |""",
}
HEADS = ("paper", "adaptive", "compact")
_LAYER = re.compile(r"conv\d*[13579]-[1-9]\d*|LRN")
_CHANNELS = range(1, 5)  # of images: grey, grey with alpha, RGB, RGB with alpha
MAP = 7  # side of the map that the adaptive head makes: the paper's, of 224 px
HEAD_BEGINS = ("adaptive_average", "flatten", "average")  # kinds of layers
_LAST = 8  # the paper's number of the last weight layer, whatever the depth
HEAD = f"fc{_LAST}"  # the layer that returns the logits


class LayerSpec(NamedTuple):
    """One layer of a network applied to images of a known size.

    Attributes:
        name: in the paper's terms: `conv3_2`, `bn3_2`, `relu3_2`, `lrn1`, `pool3`,
            `fc7`, `relu7`. Layers without parameters that the paper does not number
            are called by their kind: `flatten`, `dropout6`.
        kind: "conv", "batch_norm", "lrn", "relu", "pool", "adaptive_average",
            "flatten", "average", "dense" or "dropout".
        stage: number of the stage, from 1; in the head, the number of the layer (7 for
            `fc7`), and 0 for "adaptive_average", "flatten" and "average".
        kernel: side in pixels of the window that one output value sees (the largest,
            for "adaptive_average"); 1 for pointwise layers; for "flatten" and
            "average", the height of the map.
        inputs: channels, or values, that enter.
        channels: channels, or values, that leave.
        size: height and width of the output map; `(1, 1)` in the head.
    """

    name: str
    kind: str
    stage: int
    kernel: int
    inputs: int
    channels: int
    size: tuple[int, int]

    @property
    def has_kernel(self) -> bool:
        """Whether it is a weight layer: one that the paper counts in the depth."""
        return self.kind in ("conv", "dense")

    @property
    def stride(self) -> int:
        """Pixels of the input map between neighbouring outputs.

        What flattens or averages a map has one output: the next one is a map away.
        """
        whole = self.kind in ("pool", "adaptive_average", "flatten", "average")
        return self.kernel if whole else 1


def stages(variant: str) -> list[list[str]]:
    """Returns the layers of a configuration, stage by stage.

    Args:
        variant: one of `CONFIGURATIONS`, or a table in their notation (odd kernels;
            it ends with a pool).

    Raises:
        ConfigError: `variant` is neither.

    >>> stages("conv3-64 | conv5-128 conv1-64 |")
    [['conv3-64'], ['conv5-128', 'conv1-64']]
    """
    table = variant
    if "conv" not in variant:
        table = choose(CONFIGURATIONS, variant, "variant")
    rows = [stage.split() for stage in table.split("|")]
    for layer in sum(rows, []):
        if not _LAYER.fullmatch(layer):
            raise ConfigError(
                f"variant={variant!r}: {layer!r} is no layer; write conv<odd "
                "kernel size>-<channels>, LRN, or | for a pool, spaces between"
            )
    if rows.pop() or not all(rows):
        raise ConfigError(
            f"variant={variant!r}: every stage has a layer and ends with a pool |"
        )
    return rows


def check_width(variant: str, width: float) -> None:
    """Checks that every convolution keeps a channel at this width.

    Args:
        variant: as in `stages`.
        width: multiplies the channels.

    Raises:
        ConfigError: a convolution has less than half a channel.
    """
    convolutions = [x for x in sum(stages(variant), []) if x != "LRN"]
    narrow = min(convolutions, key=_features)
    if not round(_features(narrow) * width):
        raise ConfigError(
            f"width={width} leaves no channel of {narrow}: it must be above "
            f"{0.5 / _features(narrow):g} for variant={variant!r}"
        )


def _features(layer: str) -> int:
    return int(layer.partition("-")[2])


def least_size(variant: str) -> int:
    """Returns the least height and width that leave one pixel after the last pool.

    >>> least_size("D")
    32
    """
    return 2 ** len(stages(variant))


def layers(
    variant: str = "D",
    *,
    size: tuple[int, int] = (224, 224),
    inputs: int = 3,
    width: float = 1.0,
    batch_norm: bool = False,
    whiten: bool = False,
    head: str = "paper",
    hidden: Sequence[int] = (4096, 4096),
    dropout: float = 0.5,
    pool_early: bool = False,
    num_classes: int = 1000,
    last: str = "",
) -> tuple[LayerSpec, ...]:
    """Returns the layers of a network in the order in which they are applied.

    Args:
        variant: one of `CONFIGURATIONS`, or a table in their notation.
        size: height and width of the images in pixels.
        inputs: channels of the images.
        width: multiplies the channels of every convolution.
        batch_norm: whether batch norm follows each convolution.
        whiten: whether `conv1_1` is a whitening layer, without batch norm.
        head: "paper", "adaptive" or "compact".
        hidden: widths of the hidden layers of the "paper" and the "adaptive" head.
        dropout: whether (not 0) dropout follows each hidden layer.
        pool_early: whether a pool precedes the last batch norm and ReLU of its stage.
        num_classes: width of `fc8`.
        last: the layer to end with; "": `fc8`.

    Raises:
        ConfigError: `variant`, `head` or `last` is unknown, or an image of this size
            vanishes in a pool.

    >>> [spec.name for spec in layers("A", head="compact")][:4]
    ['conv1_1', 'relu1_1', 'pool1', 'conv2_1']
    >>> layers("D")[-1]
    LayerSpec(name='fc8', kind='dense', stage=8, kernel=1, inputs=4096, channels=1000, \
size=(1, 1))
    """
    choose(HEADS, head, "head")
    if not isinstance(size, Sequence) or len(size) != 2:
        raise ConfigError(f"size={size!r} must be height and width: (224, 224)")
    image = (*size, inputs)
    specs: list[LayerSpec] = []
    for stage, names in enumerate(stages(variant), 1):
        for spec in _stage(stage, names, size, inputs, width, pool_early):
            if spec.kind == "batch_norm" and (
                not batch_norm or (whiten and spec.name == "bn1_1")
            ):
                continue
            specs.append(spec)
        size, inputs = specs[-1].size, specs[-1].channels
    specs += _head(size, inputs, head, hidden, dropout, num_classes)
    names = [spec.name for spec in specs]
    used = specs[: names.index(choose(names, last or HEAD, "last")) + 1]
    _check_size(variant, image, 2 ** sum(spec.kind == "pool" for spec in used))
    return tuple(used)


def head_input(specs: Sequence[LayerSpec]) -> tuple[str, int]:
    """Returns the first dense layer's name, and the channels of the map that it sees.

    >>> head_input(layers("D"))
    ('fc6', 512)
    """
    first = next(spec.name for spec in specs if spec.kind == "dense")
    return first, next(spec.inputs for spec in specs if spec.kind in HEAD_BEGINS)


def _stage(stage, names, size, inputs, width, pool_early) -> Iterator[LayerSpec]:
    """Yields the layers of a stage, with a norm for every convolution."""
    half = size[0] // 2, size[1] // 2
    early = pool_early and names[-1] != "LRN"
    for i, name in enumerate(names, 1):
        if name == "LRN":
            yield LayerSpec(f"lrn{stage}", "lrn", stage, 1, inputs, inputs, size)
            continue
        kernel = int(name.removeprefix("conv").partition("-")[0])
        channels = round(_features(name) * width)
        place = f"{stage}_{i}"
        yield LayerSpec(f"conv{place}", "conv", stage, kernel, inputs, channels, size)
        inputs = channels
        if early and i == len(names):
            size = half
            yield LayerSpec(f"pool{stage}", "pool", stage, 2, inputs, inputs, size)
        for kind, prefix in (("batch_norm", "bn"), ("relu", "relu")):
            yield LayerSpec(prefix + place, kind, stage, 1, inputs, inputs, size)
    if not early:
        yield LayerSpec(f"pool{stage}", "pool", stage, 2, inputs, inputs, half)


def _head(size, inputs, head, hidden, dropout, num_classes) -> Iterator[LayerSpec]:
    if head == "adaptive":
        window = max(stop - start for start, stop in windows(size[0]))
        size = MAP, MAP
        kind = "adaptive_average"
        yield LayerSpec(kind, kind, 0, window, inputs, inputs, size)
    kind, values = "flatten", size[0] * size[1] * inputs
    if head == "compact":
        kind, values, hidden = "average", inputs, ()
    yield LayerSpec(kind, kind, 0, size[0], inputs, values, (1, 1))
    for i, features in enumerate(hidden, _LAST - len(hidden)):
        yield LayerSpec(f"fc{i}", "dense", i, 1, values, features, (1, 1))
        values = features
        yield LayerSpec(f"relu{i}", "relu", i, 1, values, values, (1, 1))
        if dropout:
            yield LayerSpec(f"dropout{i}", "dropout", i, 1, values, values, (1, 1))
    yield LayerSpec(HEAD, "dense", _LAST, 1, values, num_classes, (1, 1))


def windows(length: int) -> list[tuple[int, int]]:
    """Returns the part of a map that each output of the adaptive average sees.

    Along one axis, as `(start, stop)`; equivalent to `torch.nn.AdaptiveAvgPool2d(7)`.

    >>> windows(14)[:2], windows(3)[:3]
    ([(0, 2), (2, 4)], [(0, 1), (0, 1), (0, 2)])
    """
    return [(i * length // MAP, -(-(i + 1) * length // MAP)) for i in range(MAP)]


def _check_size(variant, image, least):
    height, width, channels = image
    if min(height, width) >= least:
        return
    if height in _CHANNELS and channels not in _CHANNELS:
        raise ConfigError(
            f"images [B, {height}, {width}, {channels}] have their channels first: "
            "they must be NHWC, [B, height, width, channels] "
            "(images.transpose(0, 2, 3, 1))"
        )
    raise ConfigError(
        f"images of {height}x{width} are too small: configuration {variant} halves "
        f"them {least.bit_length() - 1} times and needs at least {least}x{least}"
    )
