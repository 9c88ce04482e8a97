"""Evaluates weights, wherever they are from, on the images of a data set.

    python -m vgg_jax evaluate --weights=speedrun
    python -m vgg_jax evaluate --weights=speedrun --data=cifar10_sample --views=1,2,6

Of a network of the zoo it prints what its card says. It computes in float32, so that
every machine says the same. `vgg score` is for a run and the splits of its config.
"""

import argparse

from rich.console import Console

from vgg_jax.cli import weights_option
from vgg_jax.cli.score import show
from vgg_jax.data import datasets
from vgg_jax.errors import ConfigError, choose
from vgg_jax.evaluation import of_network
from vgg_jax.interop import zoo
from vgg_jax.interop.load import load
from vgg_jax.interop.network import Network
from vgg_jax.nn.views import VIEWS
from vgg_jax.training.progress import Display


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    weights_option.add(parser)
    parser.add_argument("--data", default="cifar10", help="default: cifar10")
    parser.add_argument("--split", default="test", help="TFDS split; default: test")
    parser.add_argument(
        "--views", default="", help="1,2,6; default: those of the zoo's card, else 1"
    )
    parser.add_argument(
        "--data_dir", default="", help="TFDS directory; default: TFDS_DATA_DIR"
    )


def run(options: argparse.Namespace) -> None:
    """Prints one row per number of views.

    Raises:
        ConfigError, RunError: see `load`, `datasets.one_split`, `of_network.score`.
    """
    known = {str(count): count for count in VIEWS}
    asked = [x for x in options.views.split(",") if x] or _of_card(options.weights)
    views = [choose(known, count, "--views") for count in asked]
    network = load(options.weights)
    split, classes = datasets.one_split(
        options.data, options.split, data_dir=options.data_dir, size=network.size
    )
    _check_classes(network, options.data, classes)
    found = {}
    with Display(Console(), epochs=1, steps_per_epoch=1) as display:
        report = lambda seen: display.evaluate(options.split, seen, len(split))
        for count in views:
            found[count] = of_network.score(network, split, views=count, report=report)
    print(f"{options.split} of {options.data}, {network.source}")
    show(found)


def _of_card(weights: str) -> list[str]:
    card = zoo.cards().get(weights)
    return list(card.accuracy) if card else ["1"]


def _check_classes(network: Network, data: str, classes: tuple[str, ...]) -> None:
    known = network.class_names or classes
    if known != classes:
        first = next(
            (pair for pair in zip(known, classes, strict=False) if len(set(pair)) > 1),
            (f"{len(known)} classes", f"{len(classes)} classes"),
        )
        raise ConfigError(
            f"{network.source} has other classes than {data}: {first[0]}, not "
            f"{first[1]}"
        )
