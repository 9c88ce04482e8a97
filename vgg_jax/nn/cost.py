"""What each layer of a network costs and sees, from the paper's table alone."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vgg_jax.nn import vgg as model


class Layer(NamedTuple):
    """One layer; sizes are of one image.

    Attributes:
        name: as in the network: `conv3_2`, `pool3`, `fc8`.
        shape: of the output, `(H, W, C)` or `(features,)`.
        params: trainable parameters, batch norm's included.
        macs: multiply-accumulates of the weights; biases, norms and pools left out.
        receptive_field: pixels of the input that one output sees, a side.
        stride: pixels of the input between neighbouring outputs.
    """

    name: str
    shape: tuple[int, ...]
    params: int
    macs: int
    receptive_field: int
    stride: int

    @property
    def elements(self) -> int:
        """Of the output."""
        return math.prod(self.shape)


def table(
    variant: str,
    *,
    size: int = 224,
    channels: int = 3,
    width: float = 1.0,
    batch_norm: bool = False,
    norm_scale: bool = True,
    whiten: bool = False,
    head: str = "paper",
    hidden: Sequence[int] = (4096, 4096),
    classes: int = 1000,
) -> list[Layer]:
    """The layers of a network on images of `size` x `size`; arguments as `model.VGG`.

    Raises:
        ConfigError: unknown variant.
    """
    rows, field, stride = [], 1, 1
    for s, stage in enumerate(model.stages(variant), 1):
        for i, layer in enumerate(stage, 1):
            if layer == "LRN":
                rows.append(
                    Layer(f"lrn{s}", (size, size, channels), 0, 0, field, stride)
                )
                continue
            kernel, features = map(int, layer.removeprefix("conv").split("-"))
            features = max(1, round(features * width))
            weights = kernel * kernel * channels * features
            norm = batch_norm and not (whiten and (s, i) == (1, 1))
            vectors = 1 + norm * (1 + norm_scale)  # bias, and batch norm's
            field += (kernel - 1) * stride
            rows.append(
                Layer(
                    name=f"conv{s}_{i}",
                    shape=(size, size, features),
                    params=weights + features * vectors,
                    macs=weights * size * size,
                    receptive_field=field,
                    stride=stride,
                )
            )
            channels = features
        field += stride
        size, stride = size // 2, 2 * stride
        rows.append(Layer(f"pool{s}", (size, size, channels), 0, 0, field, stride))
    return rows + _head(channels, size, head, (*hidden, classes), field, stride)


def _head(channels, size, head, widths, field, stride):
    rows = []
    if head == "compact":
        widths, inputs = widths[-1:], channels
    else:
        inputs = size * size * channels
    field, stride = field + (size - 1) * stride, size * stride
    for i, features in enumerate(widths, 9 - len(widths)):
        weights = inputs * features
        rows.append(
            Layer(f"fc{i}", (features,), weights + features, weights, field, stride)
        )
        inputs = features
    return rows


def total(rows: list[Layer]) -> Layer:
    """Parameters and MACs of all rows; the rest is the last row's."""
    return rows[-1]._replace(
        name="total",
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
    )
