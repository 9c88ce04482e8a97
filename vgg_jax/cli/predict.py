"""Says what is in pictures: the most probable classes of each.

    python -m vgg_jax predict examples/pictures/dog.png
    python -m vgg_jax predict examples/pictures --weights=speedrun --csv

Pictures may have any size and mode; of a folder, every picture in it and below it. On a
terminal each is shown beside its classes; `--json` writes an object per line. A file
that is no picture is named, the others are classified, and the exit code is 1.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
from rich.console import Console
from rich.progress import track
from rich.text import Text

from vgg_jax.cli import weights_option
from vgg_jax.data import pictures
from vgg_jax.errors import ConfigError, RunError
from vgg_jax.inference.predict import Prediction, predictions
from vgg_jax.interop.load import load
from vgg_jax.interop.network import Network

_SHOWN = 20  # pictures up to which each is drawn on a terminal
_THUMBNAIL = 12  # pixels, two of them per line of text
_BAR = 24  # characters of a bar of 100%
_NAMED = 10  # bad files that are named at the end

Rows = Iterable[tuple[Prediction, list[tuple[str, float]]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("pictures", nargs="+", help="files, or folders of them")
    weights_option.add(parser)
    parser.add_argument("--top", type=int, default=5, help="classes; default: 5")
    parser.add_argument("--views", type=int, default=1, help="1, 2 or 6; default: 1")
    parser.add_argument(
        "--size", type=int, default=0, help="pixels; default: those of the weights"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="an object per line")
    form.add_argument("--csv", action="store_true", help="a row per picture")


def run(options: argparse.Namespace) -> None:
    """Prints the classes of each picture.

    Raises:
        ConfigError: there is no picture, or an option is wrong; see `load`.
        RunError: some files are no pictures.
    """
    if options.top < 1 or options.size < 0:
        raise ConfigError("--top must be at least 1, and --size a number of pixels")
    files = found(options.pictures)
    network = load(options.weights)
    bad: list[Prediction] = []
    asked = predictions(network, files, size=options.size, views=options.views)
    rows = _named(network, _watched(asked, len(files)), options.top, bad)
    _writer(options, len(files))(rows)
    if bad:
        named = "".join(f"\n  {p.file}: {p.error}" for p in bad[:_NAMED])
        more = f"\n  and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
        raise RunError(
            f"{len(bad):,} of {len(files):,} files are not readable pictures:"
            f"{named}{more}"
        )


def found(names: Sequence[str]) -> list[Path]:
    """Returns the files that are named, and those in folders whose names say picture.

    Raises:
        ConfigError: a name is standard input or an address, or there is nothing there.
    """
    files: list[Path] = []
    suffixes = pictures.suffixes()
    for name in names:
        path = Path(name)
        if name == "-" or "://" in name:
            what = "standard input" if name == "-" else "the network"
            raise ConfigError(
                f"{name}: pictures are read from files, not from {what}: save it to a "
                "file first"
            )
        if path.is_dir():
            inside = sorted(
                p
                for p in path.rglob("*")
                if p.suffix.lower() in suffixes and p.is_file() and p.name[0] != "."
            )
            if not inside:
                raise ConfigError(f"{name}: there is no picture in this folder")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise ConfigError(f"{name}: there is no such file or folder")
    return files


def _watched(asked: Iterator[Prediction], total: int) -> Iterator[Prediction]:
    """Passes predictions on, with a bar on a terminal and lines elsewhere."""
    console = Console(stderr=True)
    if total <= _SHOWN:
        yield from asked
    elif console.is_terminal:
        yield from track(asked, "pictures", total, console=console, transient=True)
    else:
        told = time.monotonic()
        for done, prediction in enumerate(asked, 1):
            yield prediction
            if time.monotonic() - told > 15:
                told = time.monotonic()
                print(f"{done:,} of {total:,} pictures", file=sys.stderr)


def _named(
    network: Network, asked: Iterator[Prediction], top: int, bad: list[Prediction]
) -> Rows:
    """Yields predictions with the names of the classes; keeps those without any."""
    names = network.class_names or range(network.model.num_classes)
    for prediction in asked:
        if prediction.error:
            bad.append(prediction)
            yield prediction, []
        else:
            yield prediction, [(str(names[i]), p) for i, p in prediction.top(top)]


def _writer(options: argparse.Namespace, count: int) -> Callable[[Rows], None]:
    console = Console()
    if options.json:
        return _write_json
    if options.csv:
        return _write_csv
    colours = console.is_terminal and console.color_system in ("truecolor", "256")
    if colours and count <= _SHOWN:
        return partial(draw, console)
    return _write_lines


def _write_json(rows: Rows) -> None:
    for prediction, classes in rows:
        said = {"file": str(prediction.file)}
        ranked = [{"class": name, "probability": p} for name, p in classes]
        more = {"error": prediction.error} if prediction.error else {"classes": ranked}
        print(json.dumps(said | more))


def _write_csv(rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    header = True
    for prediction, classes in rows:
        if prediction.error:
            continue
        if header:
            places = range(1, len(classes) + 1)
            pairs = [(f"class_{i}", f"probability_{i}") for i in places]
            writer.writerow(["file", *sum(pairs, ())])
            header = False
        writer.writerow([prediction.file, *sum(classes, ())])


def _write_lines(rows: Rows) -> None:
    for prediction, classes in rows:
        if not prediction.error:
            said = ", ".join(f"{name} {100 * p:.1f}%" for name, p in classes)
            print(f"{prediction.file}: {said}")


def draw(console: Console, rows: Rows) -> None:
    """Shows each picture, two pixels per character, beside bars of its classes."""
    for prediction, classes in rows:
        if prediction.error:
            continue
        width = max(len(name) for name, _ in classes)
        beside = [Text(str(prediction.file), style="bold")]
        for name, p in classes:
            bar = "█" * round(_BAR * p)
            beside.append(Text(f"{name:>{width}} {100 * p:5.1f}%  {bar}"))
        drawn = _thumbnail(prediction)
        for i in range(max(len(drawn), len(beside))):
            left = drawn[i] if i < len(drawn) else Text(" " * _THUMBNAIL)
            right = beside[i] if i < len(beside) else Text()
            console.print(left, right, sep="  ", no_wrap=True, overflow="ellipsis")
        console.print()


def _thumbnail(prediction: Prediction) -> list[Text]:
    assert prediction.picture is not None
    coloured = np.repeat(prediction.picture, 3 // prediction.picture.shape[-1], -1)
    small = PIL.Image.fromarray(coloured).resize((_THUMBNAIL, _THUMBNAIL))
    pixels, lines = np.asarray(small), []
    for y in range(0, _THUMBNAIL, 2):
        line = Text()
        for x in range(_THUMBNAIL):
            upper, lower = (bytes(pixels[row, x]).hex() for row in (y, y + 1))
            line.append("▀", style=f"#{upper} on #{lower}")
        lines.append(line)
    return lines
