"""What the sheet of an explanation shows: pictures, maps over them, plain sentences.

Pages and pictures of it are drawn from these values (`sheet_html`, `sheet_png`).
"""

from typing import NamedTuple

import matplotlib
import numpy as np
import PIL.Image

from vgg_jax.inference.explain import ChannelView, Explanation

_SIDE = 256  # pixels of a map over a picture, at least
_STRONG, _SIGNED = "inferno", "RdBu_r"  # colours from none to most; from blue to red
_BEST = 5  # classes named
_FILTERS = 64  # shown
_TAIL = 99.5  # percentile of a gradient that gets the full colour
_EMPTY = 1e-12


class Scale(NamedTuple):
    """What the colours of a map mean.

    Attributes:
        colours: matplotlib's name of them.
        low, high: what stands at the two ends.
    """

    colours: str
    low: str
    high: str


class Panel(NamedTuple):
    """One picture of the sheet.

    Attributes:
        title: above it.
        text: a sentence that says how to read it; a caption, in a row of many.
        picture: uint8 `[H, W, 3]`.
        heat: uint8 `[h, w, 4]`, laid over the picture, or None.
        scale: of the heat.
    """

    title: str
    text: str
    picture: np.ndarray
    heat: np.ndarray | None = None
    scale: Scale | None = None


class Section(NamedTuple):
    """Panels under one heading; small ones have captions instead of sentences."""

    title: str
    text: str
    panels: list[Panel]
    small: bool = False


def best(found: Explanation) -> list[tuple[str, float]]:
    """Returns the most probable classes and their probabilities, at most five."""
    order = np.argsort(-found.probabilities, kind="stable")[:_BEST]
    return [(found.names[i], float(found.probabilities[i])) for i in order]


def sections(found: Explanation) -> list[Section]:
    """Returns what a sheet shows below the answer itself."""
    name = found.names[found.target]
    shown = [
        Section(
            f"Why “{name}”",
            f"Four methods, one question: what in this picture speaks for “{name}”?",
            [_cam(found), _occlusion(found), _guided(found), _integrated(found)],
        )
    ]
    if found.channel:
        shown.append(_channel_section(found, found.channel))
    return [*shown, _active(found), _filters(found)]


def _cam(found: Explanation) -> Panel:
    high, (height, width) = float(found.cam.max()), found.cam.shape
    name = found.names[found.target]
    text = (
        f"The brighter a place, the more of what {found.layer} sees there speaks for "
        f"“{name}”; its map of {height}x{width} is smoothed over the picture."
    )
    if high < _EMPTY:
        text = f"Nothing that {found.layer} sees speaks for “{name}”."
    scale = Scale(_STRONG, "0", f"{high:.2g}")
    return Panel(
        f"Grad-CAM at {found.layer}",
        text,
        found.picture,
        _heat(found.cam, _STRONG, 0, high),
        scale,
    )


def _occlusion(found: Explanation) -> Panel:
    most, name = float(abs(found.falls).max()), found.names[found.target]
    return Panel(
        "Occlusion",
        "Red where covering the place with a grey square makes "
        f"“{name}” less probable, blue where it makes it more so; in percentage "
        "points.",
        _grey(found.picture),
        _heat(found.falls, _SIGNED, -most, most),
        Scale(_SIGNED, f"+{100 * most:.2g}", f"−{100 * most:.2g}"),
    )


def _guided(found: Explanation) -> Panel:
    return Panel(
        "Guided backprop",
        "The changes of colour that excite the answer: what stands out from the grey "
        "are the edges and spots that the network responds to.",
        _about_grey(found.guided),
    )


def _integrated(found: Explanation) -> Panel:
    shares, name = (
        np.asarray(found.integrated.values).sum(-1),
        found.names[found.target],
    )
    most = float(np.percentile(abs(shares), _TAIL))
    return Panel(
        "Integrated gradients",
        f"Each pixel’s share of the logit of “{name}”, red for and blue against; all "
        f"add up to {found.integrated.difference:+.3g}, the difference to a black "
        f"picture (off by {100 * found.integrated.error:.2g}%).",
        _grey(found.picture),
        _heat(shares, _SIGNED, -most, most, smooth=False),
        Scale(_SIGNED, f"−{most:.2g}", f"+{most:.2g}"),
    )


def _active(found: Explanation) -> Section:
    numbers, means, maps = map(np.asarray, found.channels)
    panels = [
        Panel(
            f"channel {number}",
            f"mean {mean:.2g}",
            found.picture,
            _heat(seen, _STRONG, 0, seen.max()),
        )
        for number, mean, seen in zip(numbers, means, maps, strict=True)
    ]
    text = (
        f"The {len(panels)} of {found.layer} with the largest mean activation: bright "
        "where a channel responds, each up to its own maximum."
    )
    return Section("The most active channels", text, panels, small=True)


def _channel_section(found: Explanation, view: ChannelView) -> Section:
    layer, number = view.wanted
    unit, excited, inverted = f"{layer}:{number}", view.excited, view.inverted
    panels = [
        Panel(
            "What it looks for",
            f"An image made from noise to excite {unit}, whose mean activation grew "
            f"from {excited.before:.2g} to {excited.after:.2g}.",
            _bytes(np.asarray(excited.images)),
        ),
        Panel(
            f"What {layer} knows",
            f"An image made from noise until its features in {layer} were those of the "
            f"picture, but for {100 * inverted.after:.2g}%: the layer does not tell "
            "what this lacks.",
            _bytes(np.asarray(inverted.images)),
        ),
    ]
    if view.map is not None:
        high = float(view.map.max())
        seen = Panel(
            "Where it responds",
            f"Bright where {unit} is active in this picture."
            if high > _EMPTY
            else f"{unit} is silent in this picture.",
            found.picture,
            _heat(view.map, _STRONG, 0, high),
            Scale(_STRONG, "0", f"{high:.2g}"),
        )
        panels.insert(0, seen)
    text = "One channel by itself, and the layer that it belongs to."
    return Section(f"Channel {number} of {layer}", text, panels)


def _filters(found: Explanation) -> Section:
    side, _, colours, count = found.filters.shape
    kernels = np.moveaxis(found.filters, -1, 0)[:_FILTERS]
    if colours == 3:
        shown = [_stretched(kernel) for kernel in kernels]
    else:
        shown = [_stretched(kernel.mean(-1, keepdims=True)) for kernel in kernels]
    text = (
        f"{len(shown)} of {count} of conv1_1, {side}x{side} pixels, each stretched to "
        "its own range: the edges and colours that the network looks for first."
    )
    panels = [Panel("", "", kernel) for kernel in shown]
    return Section("First-layer filters", text, panels, small=True)


def _heat(
    values: np.ndarray, colours: str, low: float, high: float, *, smooth: bool = True
) -> np.ndarray:
    """Returns a map as colours, uint8 `[h, w, 4]`; signed ones fade out near zero."""
    span = max(high - low, _EMPTY)
    scaled = np.clip((values - low) / span, 0, 1).astype(np.float32)
    if smooth:
        side = max(_SIDE, *scaled.shape)
        picture = PIL.Image.fromarray(scaled)
        resized = picture.resize((side, side), PIL.Image.Resampling.BICUBIC)
        scaled = np.clip(np.asarray(resized), 0, 1)
    shown = matplotlib.colormaps[colours](scaled)
    opacity = 0.62
    if colours == _SIGNED:
        opacity = np.minimum(1, 2.4 * abs(scaled - 0.5) + 0.08)
    shown[..., 3] = opacity
    return np.round(255 * shown).astype(np.uint8)


def _grey(picture: np.ndarray) -> np.ndarray:
    """Returns a picture without its colours, and paler, to be a ground for a map."""
    grey = np.asarray(PIL.Image.fromarray(picture).convert("L"), np.float32)
    pale = np.round(110 + 0.55 * grey).clip(0, 255).astype(np.uint8)
    return np.repeat(pale[..., None], 3, axis=-1)


def _about_grey(gradient: np.ndarray) -> np.ndarray:
    """Returns a gradient as colours about grey, which is 0."""
    most = max(float(np.percentile(abs(gradient), _TAIL)), _EMPTY)
    return _bytes(np.broadcast_to(0.5 + gradient / most / 2, (*gradient.shape[:2], 3)))


def _bytes(unit: np.ndarray) -> np.ndarray:
    return np.round(255 * unit.clip(0, 1)).astype(np.uint8)


def _stretched(kernel: np.ndarray) -> np.ndarray:
    low, high = kernel.min(), kernel.max()
    unit = (kernel - low) / max(high - low, _EMPTY)
    return _bytes(np.broadcast_to(unit, (*kernel.shape[:2], 3)))
