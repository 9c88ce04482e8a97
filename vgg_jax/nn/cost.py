"""What each layer of a network costs and sees, from the paper's table alone."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from vgg_jax.nn import pieces
from vgg_jax.nn.architecture import LayerSpec

_ROWS = ("conv", "lrn", "pool", "dense")  # kinds of layers with a row of their own
BYTES = {"float32": 4, "bfloat16": 2}  # of a value


class LayerCost(NamedTuple):
    """What one layer costs on one image.

    Attributes:
        name: as in the network: `conv3_2`, `pool3`, `fc8`.
        shape: shape of the output, `(H, W, C)` or `(features,)`.
        params: number of parameters, those of the layer's batch norm included.
        macs: multiply-accumulates of the weights; biases, norms and pools left out.
        kept: number of values that training keeps for the backward pass: the outputs
            of the layer, and the inputs of its batch norm.
        receptive_field: side in pixels of the part of the image that one output sees.
        stride: pixels of the image between neighbouring outputs.
    """

    name: str
    shape: tuple[int, ...]
    params: int
    macs: int
    kept: int
    receptive_field: int
    stride: int

    @property
    def elements(self) -> int:
        """Number of output values."""
        return math.prod(self.shape)


def costs(specs: Iterable[LayerSpec], *, norm_scale: bool = True) -> list[LayerCost]:
    """Returns one row per convolution, norm over channels, pool and dense layer.

    Args:
        specs: `architecture.layers` or `VGG.layers`.
        norm_scale: whether batch norm learns a scale besides its bias.

    >>> from vgg_jax.nn.architecture import layers
    >>> for cost in costs(layers("A"))[:2]:
    ...     print(cost.name, cost.shape, cost.params, cost.receptive_field)
    conv1_1 (224, 224, 64) 1792 3
    pool1 (112, 112, 64) 0 4
    """
    rows: list[LayerCost] = []
    field, stride = 1, 1
    for spec in specs:
        field += (spec.kernel - 1) * stride
        if spec.kind in _ROWS:
            rows.append(_row(spec, field, stride * spec.stride))
        elif spec.kind == "batch_norm":
            at = next(i for i in reversed(range(len(rows))) if rows[i].params)
            params = rows[at].params + spec.channels * (1 + norm_scale)
            kept = rows[at].kept + math.prod(spec.size) * spec.channels
            rows[at] = rows[at]._replace(params=params, kept=kept)
        stride *= spec.stride
    return rows


def _row(spec, field, stride):
    weights = spec.kernel**2 * spec.inputs * spec.channels if spec.has_kernel else 0
    height, width = spec.size
    shape = (spec.channels,) if spec.kind == "dense" else (*spec.size, spec.channels)
    return LayerCost(
        name=spec.name,
        shape=shape,
        params=weights + spec.channels if weights else 0,
        macs=weights * height * width,
        kept=math.prod(shape),
        receptive_field=field,
        stride=stride,
    )


class TrainingBytes(NamedTuple):
    """The memory that training takes, in bytes.

    Attributes:
        weights: weights, velocity and gradients, in float32; of shards, the sums of
            gradients that are under way too.
        activations: what the backward pass needs of a batch, and what the layers work
            with.
    """

    weights: int
    activations: int


class _Work(NamedTuple):
    """What a step works with besides, on CPU, fitted to the plans of XLA for networks.

    32 without our kernels, 58 with them (`benchmarks/memory.py`).

    Attributes:
        convolutions, dense: times the bytes of the weights.
        layers: times the bytes of each convolution's output, up to a piece
            (`nn.pieces`).
        largest: times the bytes of the largest of these.
    """

    convolutions: float
    dense: float
    layers: float
    largest: float


_WORK = {"float32": _Work(2.2, 0.2, 1.0, 0), "bfloat16": _Work(0.9, 0.4, 0.75, 0)}
_FUSED_WORK = {"float32": _Work(3.7, 0, 0, 1.0), "bfloat16": _Work(4.1, 0, 0, 1.3)}


class _StageWork(NamedTuple):
    """What a step works with whose stages are computed again, fitted to 32 plans too.

    Attributes:
        convolutions, dense: times the bytes of the weights, all through the step.
        kernels: times the bytes of the convolutions' weights of one stage.
        layers: times the bytes of each convolution's output, up to a piece.
        largest: times the bytes of the stage's largest output.
    """

    convolutions: float
    dense: float
    kernels: float
    layers: float
    largest: float


_STAGE_WORK = {
    "float32": _StageWork(1.2, 0.45, 5.9, 0.8, 1.25),
    "bfloat16": _StageWork(0.8, 0.5, 2.3, 1.55, 0.4),
}
_FUSED_STAGE_WORK = {
    "float32": _StageWork(0.2, 0.1, 8.8, 0.65, 0.8),
    "bfloat16": _StageWork(1.85, 0.25, 4.8, 0, 0.7),
}


def training_bytes(
    rows: Iterable[LayerCost],
    *,
    batch_size: int,
    dtype: str,
    remat: str = "none",
    shards: int = 1,
    fused: bool = False,
) -> TrainingBytes:
    """Estimates the memory that a training step takes.

    Of XLA's plans with our kernels it is within 16%. Without them, for two kinds of
    CPU, it was -13% to +22%, and -16% to +40% where stages are computed again; beyond
    16% only for D at 32 px with a batch of 32 (`benchmarks.memory`). Of those for GPUs
    and TPUs, whose convolutions work
    otherwise, it is no more than an idea.

    Args:
        rows: of `costs`.
        batch_size: images that a device computes at once.
        dtype: type of the activations, one of `BYTES`.
        remat: as `VGG.remat`.
        shards: how many a device computes one after the other.
        fused: whether our kernels compute it (`machine.prefers_kernels`).

    >>> from vgg_jax.nn.architecture import layers
    >>> rows = costs(layers("A", head="compact"))
    >>> [round(n / 1e6) for n in training_bytes(rows, batch_size=8, dtype="float32")]
    [117, 567]
    """
    rows = list(rows)
    value = batch_size * BYTES[dtype]
    levels = max(shards, 1).bit_length() - 1  # two sums at each of the tree
    copies = 2 + 2 * levels  # the weights, the velocity, and those sums
    if remat == "stage":
        stage_work = (_FUSED_STAGE_WORK if fused else _STAGE_WORK)[dtype]
        worked = _most_of_a_stage(rows, value, stage_work)
        copies += levels > 0
    else:
        work = (_FUSED_WORK if fused else _WORK)[dtype]
        worked = _kept_and_worked(rows, value, work)
        copies += 1  # the gradients, which a stage computed again need not all wait
    return TrainingBytes(copies * _weights(rows), round(worked))


def _weights(rows: Iterable[LayerCost]) -> int:
    return 4 * sum(row.params for row in rows)


def _is_convolution(row: LayerCost) -> bool:
    return row.params > 0 and len(row.shape) == 3


def _pieces(rows: Iterable[LayerCost], value: int) -> int:
    """Returns the bytes of the convolutions' outputs, each up to a piece."""
    sizes = (value * row.elements for row in rows if _is_convolution(row))
    return sum(min(size, pieces.BYTES) for size in sizes)


def _kept_and_worked(rows: list[LayerCost], value: int, work: _Work) -> float:
    kernels = _weights(filter(_is_convolution, rows))
    others = _weights(rows) - kernels
    kept = value * sum(row.kept for row in rows)
    largest = max((row.elements for row in filter(_is_convolution, rows)), default=0)
    used = work.convolutions * kernels + work.dense * others
    used += work.layers * _pieces(rows, value)
    used += work.largest * min(value * largest, pieces.BYTES)
    return kept + used


def _most_of_a_stage(rows: list[LayerCost], value: int, work: _StageWork) -> float:
    """Returns the most bytes that a stage needs while it is computed again.

    Those of all inputs of stages before it are kept too, and the dense layers' whole
    gradient.
    """
    stages: list[list[LayerCost]] = [[]]
    for row in rows:
        stages[-1].append(row)
        if row.name.startswith("pool"):
            stages.append([])
    kernels = _weights(filter(_is_convolution, rows))
    most, before = 0.0, 0
    for stage in stages:
        needed = float(before + value * sum(row.kept for row in stage))
        if any(map(_is_convolution, stage)):
            needed += work.kernels * _weights(stage)
            needed += work.layers * _pieces(stage, value)
            needed += work.largest * value * max(row.elements for row in stage)
        else:
            needed += _weights(stage)
        most = max(most, needed)
        before += value * sum(r.kept for r in stage if r.name.startswith("pool"))
    dense = _weights(rows) - kernels
    return most + work.convolutions * kernels + work.dense * dense


def total(rows: list[LayerCost]) -> LayerCost:
    """Returns the parameters and MACs of all rows; the rest is the last row's.

    >>> from vgg_jax.nn.architecture import layers
    >>> total(costs(layers("D"))).params  # Table 2 of the paper: 138 million
    138357544
    """
    return rows[-1]._replace(
        name="total",
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
    )
