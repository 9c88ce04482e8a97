"""Explains an answer: what in a picture a network looks at, and what its channels see.

    python -m vgg_jax explain examples/pictures/dog.png
    python -m vgg_jax explain photo.jpg --weights=runs/quickstart --class=dog \\
        --channel=relu4_1:17 --out=why.png

Writes one sheet, a page that holds all it shows (`.html`) or a picture (`.png`):
Grad-CAM, guided back-propagation, occlusion, integrated gradients, the most active
channels and the first filters; of a channel, what excites it and what its layer knows.
"""

import argparse
import difflib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import track

from vgg_jax.cli import weights_option
from vgg_jax.data import pictures
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.files import write_atomically
from vgg_jax.inference.channels import channels_of
from vgg_jax.inference.explain import Explanation, Wanted, explain
from vgg_jax.inference.occlusion import Track
from vgg_jax.interop import layer_names
from vgg_jax.interop.load import load
from vgg_jax.interop.network import HEAD, Network

_SIDE = 224  # pixels of the pictures of a network that does not say
_NAME = "explain"  # of the sheet, numbered where there is one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("picture", type=Path, help="of any size and mode")
    weights_option.add(parser)
    parser.add_argument(
        "--class",
        dest="target",
        help="name or number of the class to explain; default: the most probable",
    )
    parser.add_argument("--channel", help="a channel to look at: relu4_1:17")
    parser.add_argument(
        "--out",
        type=Path,
        help="the sheet, .html or .png; default: explain.html, or explain-2.html ... "
        "where there is one",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what --out names"
    )


def run(options: argparse.Namespace) -> None:
    """Writes the sheet and prints its path.

    Raises:
        ConfigError: an option is wrong; see `load`.
        RunError: the picture cannot be read, or the sheet not written.
    """
    out, draw = _sheet(options.out, options.overwrite)
    if not options.picture.is_file():
        raise ConfigError(f"{options.picture}: there is no such file")
    network = load(options.weights)
    network.check_weights(HEAD)
    target = _target(network, options.target) if options.target else None
    wanted = _wanted(network, options.channel) if options.channel else None
    try:
        picture = pictures.read(options.picture, network.size or _SIDE)
    except ValueError as error:
        raise RunError(f"{options.picture} is no readable picture: {error}") from error
    found = explain(network, picture, target=target, wanted=wanted, track=_bar)
    try:
        write_atomically(out, draw(found, options.picture.name))
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error}): give --out") from error
    print(out)


_Draw = Callable[[Explanation, str], str | bytes]


def _html() -> _Draw:
    from vgg_jax.inference import sheet_html  # needs [report]

    return sheet_html.page


def _png() -> _Draw:
    from vgg_jax.inference import sheet_png  # needs [report]

    return sheet_png.draw


_DRAWN: dict[str, Callable[[], _Draw]] = {".html": _html, ".png": _png}


def _sheet(out: Path | None, overwrite: bool) -> tuple[Path, _Draw]:
    """Returns where the sheet goes and what draws it, before any work is done."""
    if out is None:
        names = (f"{_NAME}{f'-{i}' if i > 1 else ''}.html" for i in range(1, 10_000))
        out = next(path for name in names if not (path := Path(name)).exists())
    if out.suffix.lower() not in _DRAWN:
        raise ConfigError(f"--out={out} must end in {' or '.join(_DRAWN)}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out={out}: there is no directory {out.parent}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists: give another --out, or --overwrite")
    return out, _DRAWN[out.suffix.lower()]()


def _target(network: Network, said: str) -> int:
    """Returns the number of a class by its name or number."""
    names, count = network.class_names, network.model.num_classes
    if said in names:
        return names.index(said)
    if said.isdecimal() and int(said) < count:
        return int(said)
    near = difflib.get_close_matches(said, names, n=3) or names[:10]
    known = f", or a name: {', '.join(near)}" if near else ""
    raise ConfigError(
        f"--class={said!r} is none of the {count} classes: give a number from 0 to "
        f"{count - 1}{known}"
    )


def _wanted(network: Network, said: str) -> Wanted:
    """Returns a channel by what is said of it: `relu4_1:17`."""
    layer, colon, number = said.rpartition(":")
    if not colon or not number.isdecimal():
        raise ConfigError(f"--channel={said!r} is not LAYER:NUMBER, as relu4_1:17")
    name = layer_names.resolve(network.model, layer)
    count = channels_of(network, name)
    if int(number) >= count:
        raise ConfigError(
            f"--channel={said!r}: {name} has {count} channels, 0 to {count - 1}"
        )
    return Wanted(name, int(number))


def _bar(name: str) -> Track:
    """Returns what shows a loop as a bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    return lambda steps: track(
        steps, name, console=console, transient=True, disable=not console.is_terminal
    )
