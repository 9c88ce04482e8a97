"""Which network a file of weights is of, read off the names and shapes of its tensors.

A foreign file does not say it. Its convolutions, batch norms and dense layers do, and
where the numbers of PyTorch's modules leave room for a pool.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from vgg_jax.errors import RunError
from vgg_jax.nn import architecture
from vgg_jax.nn.architecture import HEAD
from vgg_jax.nn.vgg import VGG

Shapes = Mapping[str, tuple[int, ...]]  # name of a tensor -> its shape in the file


class Inferred(NamedTuple):
    """What a file is.

    Attributes:
        convention: of its names and layouts (`tensor_names.CONVENTIONS`).
        model: the network, with as many classes as the file has; 1,000 without a head.
        without: weight layers that it lacks; empty for a whole network.
    """

    convention: str
    model: VGG
    without: tuple[str, ...]


def infer(shapes: Shapes) -> Inferred:
    """Returns what network a file is of.

    Args:
        shapes: of its tensors, under torchvision's, timm's or Keras' names.

    Raises:
        RunError: it is none that this package has; the message says why, and begins
            with a verb whose subject is the file.

    >>> shapes = {"features.0.weight": (8, 3, 3, 3), "features.3.weight": (8, 8, 3, 3)}
    >>> found = infer(shapes)
    >>> found.model.variant, found.without
    ('conv3-8 | conv3-8 |', ('fc8',))
    """
    for marks, read in _MARKS.items():
        if any(re.match(marks, name) for name in shapes):
            return read(shapes)
    some = ", ".join(list(shapes)[:4])
    raise RunError(
        "is no VGG of torchvision, timm or Keras, nor one that vgg_jax.save wrote: "
        f"its tensors are called {some}{', ...' if len(shapes) > 4 else ''}"
    )


class _Module(NamedTuple):
    """A convolution of PyTorch's `features`."""

    number: int
    shape: tuple[int, ...]  # of the kernel
    norm: int  # modules from it to its batch norm; 0: it has none


def _of_torch(shapes: Shapes) -> Inferred:
    modules = _modules(shapes)
    if not modules or modules[0].number:
        raise RunError("has no convolution at features.0")
    kernels = [module.shape for module in modules]
    early = any(module.norm > 1 for module in modules)
    normed = [module.norm > 0 for module in modules]
    if any(normed) and not all(normed[1:]):
        raise RunError(
            "has batch norm after some convolutions only: the networks here have it "
            "after all, or all but the first"
        )
    fields: dict[str, Any] = {
        "variant": _variant(kernels, _ends_of_stages(modules)),
        "batch_norm": any(normed),
        "whiten": any(normed) and not normed[0],
        "pool_early": early,
    }
    channels = kernels[-1][0]
    if any(name.startswith(("pre_logits.", "head.")) for name in shapes):
        dense = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
        return _with_head("timm", fields, _dense(shapes, dense), channels)
    dense = sorted(
        {n.rpartition(".")[0] for n in shapes if n.startswith("classifier")}, key=_order
    )
    widths = _dense(shapes, dense)
    cut = len(widths) == 2 and widths[0][1] == widths[1][1]  # classifier[:-1] of three
    return _with_head(
        "torchvision", fields, [*widths, None] if cut else widths, channels
    )


def _modules(shapes: Shapes) -> list[_Module]:
    kernels, norms = {}, set()
    for name, shape in shapes.items():
        if found := re.fullmatch(r"features\.(\d+)\.weight", name):
            if len(shape) == 4:
                kernels[int(found[1])] = shape
            else:
                norms.add(int(found[1]))
    numbers = sorted(kernels)
    modules = []
    for number, end in zip(numbers, [*numbers[1:], math.inf], strict=False):
        norm = [n - number for n in norms if number < n < end]
        modules.append(_Module(number, kernels[number], min(norm, default=0)))
    return modules


def _ends_of_stages(modules: list[_Module]) -> list[bool]:
    """Returns of each convolution whether a pool follows it before the next one."""
    ends = []
    for module, following in zip(modules, modules[1:], strict=False):
        pools = following.number - module.number - (3 if module.norm else 2)
        if pools not in (0, 1) or module.norm not in (0, 1, 1 + pools):
            raise RunError(
                f"has a module other than batch norm, ReLU and pool between features."
                f"{module.number} and features.{following.number}"
            )
        ends.append(pools == 1)
    return [*ends, True]


def _variant(kernels: Sequence[tuple[int, ...]], ends: list[bool]) -> str:
    """Returns the name of a configuration, or the table of one, from `[K, C, h, w]`."""
    words = []
    for (features, _, height, width), end in zip(kernels, ends, strict=True):
        if height != width or height % 2 == 0:
            raise RunError(f"has a convolution of {height}x{width}, not odd and square")
        words.append(f"conv{height}-{features}{' |' if end else ''}")
    table = " ".join(words)
    for name in architecture.CONFIGURATIONS:
        if architecture.stages(name) == architecture.stages(table):
            return name
    return table


def _order(name: str) -> tuple[int, str]:
    number = name.rpartition(".")[2]
    return (int(number), name) if number.isdecimal() else (-1, name)


# Inputs and outputs of a dense layer; None for one that the file lacks.
_Width = tuple[int, int] | None


def _dense(
    shapes: Shapes, names: Collection[str], kernel: str = ".weight"
) -> list[Any]:
    """Returns inputs and outputs of dense layers, from `[K, C]` or `[K, C, h, w]`."""
    widths: list[_Width] = []
    for name in names:
        outputs, *inputs = shapes.get(name + kernel) or (0,)
        widths.append((math.prod(inputs), outputs) if inputs else None)
    return widths


def _with_head(
    convention: str, fields: dict[str, Any], dense: list[_Width], channels: int
) -> Inferred:
    """Returns what a file is, from its body and the widths of its dense layers."""
    if not any(dense):
        return Inferred(convention, VGG(**fields, head="compact"), (HEAD,))
    inputs, _ = dense[0] or (0, 0)
    *hidden, last = dense
    known = [width[1] for width in hidden if width]
    if len(known) < len(hidden) or not all(known):
        raise RunError("lacks a dense layer between others")
    averaged = convention != "keras" and inputs == architecture.MAP**2 * channels
    fields |= {"head": "adaptive" if averaged else "paper", "hidden": tuple(known)}
    if len(dense) == 1 and inputs == channels:
        fields |= {"head": "compact", "hidden": VGG.hidden}
    if last is not None:
        fields["num_classes"] = last[1]
    return Inferred(convention, VGG(**fields), () if last else (HEAD,))


def _of_keras(shapes: Shapes) -> Inferred:
    """Kernels are `[h, w, C, K]` and `[C, K]` there, and blocks are named."""
    places, kernels = [], []
    for name, shape in shapes.items():
        found = re.fullmatch(r"block(\d+)_conv(\d+)/kernel", name)
        if found and len(shape) == 4:
            places.append((int(found[1]), int(found[2])))
            kernels.append((shape[3], shape[2], *shape[:2]))
    if not kernels:
        raise RunError("has no convolution block1_conv1")
    places, kernels = zip(*sorted(zip(places, kernels, strict=True)), strict=True)
    stages = [stage for stage, _ in places]
    ends = [a != b for a, b in zip(stages, [*stages[1:], 0], strict=True)]
    fields = {"variant": _variant(kernels, ends)}
    names = ("fc1", "fc2", "predictions")
    transposed = {name: shape[::-1] for name, shape in shapes.items()}
    dense = _dense(transposed, names, "/kernel")
    return _with_head("keras", fields, dense, kernels[-1][0])


# How a name begins that tells a convention -> the function that reads its files.
_MARKS: dict[str, Callable[[Shapes], Inferred]] = {
    r"features\.0\.weight$": _of_torch,
    r"block1_conv1/kernel$": _of_keras,
}
