"""The arithmetic by which the paper and the blog argue, worked out."""

from typing import Any

from vgg_jax.nn.architecture import layers
from vgg_jax.nn.cost import LayerCost, costs, total

_WIDTHS = (64, 128, 256, 512)  # channels of the paper's layers


def _stack(table: str, inputs: int = 64, size: int = 224) -> LayerCost:
    """Returns the convolutions of a configuration as if they were one layer.

    Its parameters and MACs are their sums, its receptive field is that of the last.

    Args:
        table: one of the paper's names, or its stages.
        inputs: channels of the images.
        size: height and width of the images in pixels.
    """
    rows = costs(layers(table, inputs=inputs, size=(size, size)))
    return total([row for row in rows if row.name.startswith("conv")])


def _layers(kernel: int, channels: int, count: int = 1) -> str:
    return f"conv{kernel}-{channels} " * count + "|"


def claims() -> list[dict[str, Any]]:
    """Checks each claim about small kernels against the cost table of the networks.

    C is the number of channels in and out; biases are left out unless parameters are
    counted, strides are 1.

    Returns:
        One row per claim: "claim" is its text, "holds" whether it is true, and
        "because" the numbers that decide it.

    >>> for row in claims():
    ...     if not row["holds"]:
    ...         print(row["claim"])
    three 3x3 layers have 3 (9 C_prev + 1) C_curr parameters
    1x1 layers save multiplications
    """
    rows = [*_receptive_fields(), *_stacks(), *_pointwise()]
    return [dict(zip(("claim", "holds", "because"), row, strict=True)) for row in rows]


def _receptive_fields():
    for word, count, large in (("two", 2, 5), ("three", 3, 7)):
        seen = _stack(_layers(3, 64, count)).receptive_field
        yield (
            f"{word} 3x3 convolutions see {large}x{large}",
            seen == _stack(_layers(large, 64)).receptive_field,
            f"1{' + 2' * count} = {seen}",
        )


def _stacks():
    """Yields what three 3x3 layers cost beside one 7x7."""
    three = {c: _stack(_layers(3, c, 3), inputs=c) for c in _WIDTHS}
    seven = {c: _stack(_layers(7, c), inputs=c) for c in _WIDTHS}
    pixels = 224 * 224
    small = {three[c].macs / (pixels * c * c) for c in _WIDTHS}
    large = {seven[c].macs / (pixels * c * c) for c in _WIDTHS}
    more, less = max(large) / min(small) - 1, 1 - min(small) / max(large)
    yield (
        "three 3x3 layers have 27 C^2 weights, one 7x7 has 49 C^2, 81% more",
        (small, large, round(100 * more)) == ({27}, {49}, 81),
        f"{max(small):g} C^2 and {max(large):g} C^2: 7x7 has {more:.0%} more (81%, the "
        f"paper says); the stack {less:.0%} less",
    )
    yield (
        "with biases they have 3 (9 C + 1) C and (49 C + 1) C parameters",
        all(
            three[c].params == 3 * (9 * c + 1) * c
            and seven[c].params == (49 * c + 1) * c
            for c in _WIDTHS
        ),
        f"for C = 64, {three[64].params:,} and {seven[64].params:,}",
    )
    changing = _stack(_layers(3, 64, 3), inputs=3).params
    formula = 3 * (9 * 3 + 1) * 64
    yield (
        "three 3x3 layers have 3 (9 C_prev + 1) C_curr parameters",
        changing == formula,
        f"only where C_prev = C_curr. From 3 channels to 64 they have {changing:,}, "
        f"not {formula:,}, as only the first layer sees 3; one 7x7 has "
        f"{_stack(_layers(7, 64), inputs=3).params:,}",
    )
    yield (
        "so a stack of 3x3 costs fewer multiplications than one 7x7",
        all(three[c].macs < seven[c].macs for c in _WIDTHS),
        f"{max(small):g} C^2 to {max(large):g} C^2 for each pixel; exact only where "
        "all layers have C channels, and the stack keeps three activations, not one",
    )


def _pointwise():
    """Yields what 1x1 layers do and cost."""
    b, c, d = (_stack(variant, inputs=3) for variant in "BCD")
    relus = {v: sum(spec.kind == "relu" for spec in layers(v)) for v in "BC"}
    yield (
        "a 1x1 layer adds a non-linearity without changing what is seen",
        relus["C"] > relus["B"] and c.receptive_field == b.receptive_field,
        f"C has {relus['C']} ReLUs, B {relus['B']}; receptive field of the last "
        f"convolution: B {b.receptive_field}, C {c.receptive_field}, D "
        f"{d.receptive_field} pixels. Not exact for C: its 1x1 layers see no more, yet "
        "it is not B's network, being three layers deeper",
    )
    gmac = {variant: total(costs(layers(variant))).macs / 1e9 for variant in "BCD"}
    yield (
        "1x1 layers save multiplications",
        gmac["C"] < gmac["B"],
        f"they add to B: {gmac['B']:.2f} -> {gmac['C']:.2f} GMAC at 224 px; they save "
        f"only against the 3x3 layers in their place, D's {gmac['D']:.2f}",
    )
    direct = _stack("conv3-5 |", inputs=3, size=12).macs
    first, last = _stack("conv1-1 |", 3, 12).macs, _stack("conv3-5 |", 1, 12).macs
    yield (
        "a 1x1 layer before five 3x3 filters turns the 19,440 multiplications of a "
        "12x12x3 input into 6,912",
        (direct, first + last) == (19_440, 6_912),
        f"{direct:,}; with one 1x1 filter first, {first:,} + {last:,} = "
        f"{first + last:,}. But the five filters then see one channel instead of "
        "three, and C's own 1x1 layers keep the number of channels",
    )
