"""Evaluates weights, wherever they are from, on the images of a data set.

    python -m vgg_jax evaluate --weights=speedrun
    python -m vgg_jax evaluate --weights=speedrun --data=cifar10_sample --views=1,2,6
    python -m vgg_jax evaluate --data=cifar10_sample --protocol=dense \\
        --scales=32,40 --flip --csv=predictions.csv

Of a network of the zoo the first prints what its card says. It computes in float32, so
that every machine says the same. With `--protocol` it is the paper's own evaluation, of
whole pictures of any size: densely, by 5x5 crops, or both; several scales are averaged,
and so are several networks, `--weights=a,b`. `vgg score` is for a run and the splits of
its config.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vgg_jax.cli import error_table, weights_option
from vgg_jax.cli.score import show
from vgg_jax.data import datasets
from vgg_jax.data.picture_folder import PREFIX
from vgg_jax.errors import ConfigError, choose
from vgg_jax.evaluation import of_network, protocol
from vgg_jax.evaluation.scaled_pictures import OfSplit
from vgg_jax.evaluation.ways import PROTOCOLS
from vgg_jax.interop import zoo
from vgg_jax.interop.load import load
from vgg_jax.interop.network import Network
from vgg_jax.nn.views import VIEWS
from vgg_jax.training.progress import Display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    weights_option.add(parser)
    parser.add_argument(
        "--data",
        default="cifar10",
        help="with --protocol also folder:DIR; default: cifar10",
    )
    parser.add_argument(
        "--split", default="", help="TFDS split; default: test, or the only one"
    )
    parser.add_argument(
        "--views", default="", help="1,2,6; default: those of the zoo's card, else 1"
    )
    parser.add_argument(
        "--protocol", default="", help=f"the paper's: {', '.join(PROTOCOLS)}"
    )
    parser.add_argument(
        "--scales",
        default="",
        help="with --protocol: pixels of the smaller side, 256,384,512; default: the "
        "size of training",
    )
    parser.add_argument(
        "--flip", action="store_true", help="with --protocol: mirror images too"
    )
    parser.add_argument(
        "--csv", default="", help="with --protocol: a new file for all predictions"
    )
    parser.add_argument(
        "--data_dir", default="", help="TFDS directory; default: TFDS_DATA_DIR"
    )


def run(options: argparse.Namespace) -> None:
    """Prints one row per number of views, or per network.

    Raises:
        ConfigError, RunError: see `load`, `datasets.one_split`, `of_network.score`,
            `protocol.evaluate`.
    """
    if options.protocol:
        by_protocol(options)
        return
    for option in ("scales", "flip", "csv"):
        if getattr(options, option):
            raise ConfigError(f"--{option} needs --protocol: dense, say")
    known = {str(count): count for count in VIEWS}
    asked = [x for x in options.views.split(",") if x] or _of_card(options.weights)
    views = [choose(known, count, "--views") for count in asked]
    network = load(options.weights)
    if options.data.startswith(PREFIX):
        raise ConfigError(
            f"--data={options.data} holds pictures of any size: add --protocol=center, "
            "say"
        )
    split, classes, title = datasets.one_split(
        options.data, options.split, data_dir=options.data_dir, size=network.size
    )
    _check_classes(network, options.data, classes)
    found = {}
    with Display(Console(), epochs=1, steps_per_epoch=1) as display:
        report = lambda seen: display.evaluate(title, seen, len(split))
        for count in views:
            found[count] = of_network.score(network, split, views=count, report=report)
    print(f"{title}, {network.source}")
    show(found)


def by_protocol(options: argparse.Namespace) -> None:
    """Prints the errors of each network, and of all together, by a protocol.

    Raises:
        ConfigError, RunError: see `run`; or the CSV file exists, or its directory
            does not.
    """
    if options.views:
        raise ConfigError(
            f"--views={options.views} are of images of one size, --protocol="
            f"{options.protocol} of whole pictures: give one of them"
        )
    scales = _scales(options.scales)
    _check_new(options.csv)
    names = [name for name in options.weights.split(",") if name]
    networks = [load(name) for name in names]
    split, classes, title = datasets.whole_pictures(
        options.data, options.split, data_dir=options.data_dir
    )
    for network in networks:
        _check_classes(network, options.data, classes)
    with Display(Console(), epochs=1, steps_per_epoch=1) as display:
        result = protocol.evaluate(
            networks,
            OfSplit(split),
            protocol=options.protocol,
            scales=scales,
            flip=options.flip,
            report=lambda seen: display.evaluate(title, seen, len(split)),
        )
    print(f"{title}: {len(split):,} pictures, {options.protocol}")
    error_table.show(names, networks, result, scales)
    error_table.tell(result, split.name)
    if options.csv:
        error_table.write(Path(options.csv), result, split.name, classes)
        print(f"all predictions: {options.csv}")


def _check_new(file: str) -> None:
    """Checks before hours of work that a file can be written after them."""
    if file and Path(file).exists():
        raise ConfigError(f"--csv={file} exists: name a new file")
    if file and not (directory := Path(file).absolute().parent).is_dir():
        raise ConfigError(f"--csv={file}: there is no directory {directory}: make it")


def _scales(text: str) -> tuple[int, ...]:
    numbers = [number for number in text.split(",") if number]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise ConfigError(f"--scales={text!r} must be pixels, such as 256,384,512")
    return tuple(map(int, numbers))


def _of_card(weights: str) -> list[str]:
    card = zoo.cards().get(weights)
    return list(card.accuracy) if card else ["1"]


def _check_classes(network: Network, data: str, classes: Sequence[str]) -> None:
    if not network.class_names and network.model.num_classes == len(classes):
        return
    known = network.class_names or ("",) * network.model.num_classes
    if known != tuple(classes):
        first = next(
            (pair for pair in zip(known, classes, strict=False) if len(set(pair)) > 1),
            (),
        )
        if len(known) != len(classes) or not first:
            first = (f"{len(known)} classes", f"{len(classes)} classes")
        raise ConfigError(
            f"{network.source} has other classes than {data}: {first[0]}, not "
            f"{first[1]}"
        )
