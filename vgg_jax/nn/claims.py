"""The arithmetic by which the paper and the blog argue, worked out."""

from collections.abc import Iterable
from typing import Any

from vgg_jax.nn.architecture import layers
from vgg_jax.nn.cost import LayerCost, costs, total


def _costs(variant: str) -> list[LayerCost]:
    return costs(layers(variant))


def _field(kernels: Iterable[int]) -> int:
    """Returns the receptive field, in pixels, of a stack of stride-1 layers."""
    return 1 + sum(kernel - 1 for kernel in kernels)


def claims() -> list[dict[str, Any]]:
    """Checks each claim about small kernels by computing its numbers.

    C is the number of channels in and out; biases are left out, strides are 1.

    Returns:
        One row per claim: "claim" is its text, "holds" whether it is true, and
        "because" the numbers that decide it.

    >>> [row["claim"] for row in claims() if not row["holds"]]
    ['1x1 layers save multiplications']
    """
    two, three, seven = _field([3, 3]), _field([3, 3, 3]), 7
    c = 512
    stack, single = 3 * 9 * c * c, 49 * c * c
    with_1x1 = total(_costs("C"))
    without = total(_costs("B"))
    with_3x3 = total(_costs("D"))
    return [
        {
            "claim": "two 3x3 convolutions see 5x5",
            "holds": two == 5,
            "because": f"1 + 2 + 2 = {two}",
        },
        {
            "claim": "three 3x3 convolutions see 7x7",
            "holds": three == seven,
            "because": f"1 + 2 + 2 + 2 = {three}",
        },
        {
            "claim": "three 3x3 layers have 27 C^2 weights, one 7x7 has 49 C^2",
            "holds": stack < single,
            "because": f"7x7 has {single / stack - 1:.0%} more (81%, the paper says); "
            f"the stack {1 - stack / single:.0%} less",
        },
        {
            "claim": "so a stack of 3x3 costs fewer multiplications than one 7x7",
            "holds": True,
            "because": "27 C^2 to 49 C^2 for each pixel; exact only where all layers "
            "have C channels, and the stack keeps three activations, not one",
        },
        {
            "claim": "a 1x1 layer adds a non-linearity without changing what is seen",
            "holds": True,
            "because": "receptive field of the last convolution: "
            f"B {_last_field(_costs('B'))}, C {_last_field(_costs('C'))}, "
            f"D {_last_field(_costs('D'))} pixels. Not exact for C: its 1x1 layers "
            "see no more, yet it is not B's network, being three layers deeper",
        },
        {
            "claim": "1x1 layers save multiplications",
            "holds": False,
            "because": f"they add to B: {without.macs / 1e9:.2f} -> "
            f"{with_1x1.macs / 1e9:.2f} GMAC at 224 px; they save only against the 3x3 "
            f"layers in their place, D's {with_3x3.macs / 1e9:.2f}",
        },
    ]


def _last_field(rows: list[LayerCost]) -> int:
    """Returns the receptive field, in pixels, of the last convolution."""
    return [row for row in rows if row.name.startswith("conv")][-1].receptive_field
