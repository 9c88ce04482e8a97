"""What a network is and costs, layer by layer; nothing is allocated.

    python -m vgg_jax summary
    python -m vgg_jax summary --variant=C --size=32 --num_classes=10
    python -m vgg_jax summary --config=configs/vgg16.py
    python -m vgg_jax summary --compare
    python -m vgg_jax summary --claims --format=markdown

Without a config, a network of the paper: 224 px, 1,000 classes. With one, the config's,
and what a training by it takes; its fields can be set as in `train`. Formats: text,
markdown, json.
"""

import argparse
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from vgg_jax import machine
from vgg_jax.cli import config_file
from vgg_jax.errors import ConfigError
from vgg_jax.nn import architecture, cost
from vgg_jax.nn.claims import claims
from vgg_jax.nn.vgg import VGG

if TYPE_CHECKING:
    from vgg_jax.training.config import Config

_CLASSES = {"cifar10": 10, "cifar10_sample": 10, "cifar100": 100}
_CIFAR = {"train": 50_000, "test": 10_000}
_SPLITS = {  # number of images
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "cifar10_sample": {"train": 4_000, "test": 1_000},
}
_PIXELS = 32  # height and width of the images of these sets
FORMATS = ("text", "markdown", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    config_file.add_arguments(parser)
    network = parser.add_argument_group("a network without a config")
    network.add_argument("--variant", help="A, A-LRN, B, C, D, E or a table; default D")
    network.add_argument("--size", type=int, help="pixels of the images; default 224")
    network.add_argument("--num_classes", type=int, help="default 1000")
    network.add_argument("--head", help="paper or compact; default paper")
    network.add_argument(
        "--batch_norm", action="store_true", default=None, help="not the paper's"
    )
    parser.add_argument(
        "--compare", action="store_true", help="the six configurations side by side"
    )
    parser.add_argument(
        "--claims", action="store_true", help="the blog's arithmetic, checked"
    )
    parser.add_argument(
        "--format", default="text", choices=FORMATS, help="form of the tables"
    )


def run(options: argparse.Namespace) -> None:
    """Prints the tables.

    Raises:
        ConfigError: an option or a config is wrong, or two options contradict.
    """
    parts = _parts(options)
    if options.format == "json":
        print(json.dumps(parts, indent=2))
        return
    for title, rows in parts.items():
        show(rows, options.format, title)


def _parts(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    names = ("variant", "num_classes", "head", "batch_norm", "size")
    given = {n: v for n in names if (v := getattr(options, n)) is not None}
    _check_options(options, given)
    if options.claims:
        return {"claims": claims()}
    config = None
    if options.config:
        from vgg_jax.training.config import resolve  # needs [train]

        config = resolve(config_file.load(options.config, options.settings))
        model, size = network(config)
    else:
        size = given.pop("size", 224)
        model = VGG(**given, dtype="float32")
    if options.compare:
        return {"configurations": comparison(model, size)}
    costs = cost_table(model, size)
    dtype = str(model.dtype)
    return {"layers": rows(costs, dtype), "total": [totals(costs, dtype, config)]}


def _check_options(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Checks that no option is given that another one makes meaningless."""
    if options.settings and not options.config:
        raise ConfigError(f"{options.settings[0]} needs --config=configs/vgg16.py")
    ignored = []
    if options.claims:
        ignored = [*given, *["config"] * bool(options.config)]
    elif options.config:
        ignored = list(given)
    elif options.compare:
        ignored = [name for name in given if name == "variant"]
    if ignored:
        other = next(n for n in ("claims", "config", "compare") if getattr(options, n))
        raise ConfigError(f"--{ignored[0]} says nothing beside --{other}: leave it out")


def network(config: "Config") -> tuple[VGG, int]:
    """Returns the network of a resolved config, and the size of its images.

    Raises:
        ConfigError: size or number of classes of the data set are not known here.
    """
    name, size = config.data.name, config.augment.resize
    classes = config.num_classes or _CLASSES.get(name)
    if not size and name in _CLASSES:
        size = _PIXELS
    if not size or not classes:
        raise ConfigError(
            f"data.name={name!r}: set augment.resize and model.num_classes, which only "
            "the prepared data set could tell"
        )
    return config.model.clone(num_classes=classes), size


def cost_table(model: VGG, size: int) -> list[cost.LayerCost]:
    """Returns the cost of each layer of a network on images of `size` x `size`."""
    return cost.costs(model.layers((size, size)), norm_scale=model.norm_scale)


def rows(costs: list[cost.LayerCost], dtype: str) -> list[dict[str, Any]]:
    """Returns one dictionary per layer; bytes are those of one image's activation."""
    return [
        {
            "name": layer.name,
            "output": "x".join(map(str, layer.shape)),
            "parameters": layer.params,
            "MMAC": round(layer.macs / 1e6, 3),
            "activation kB": round(layer.elements * cost.BYTES[dtype] / 1e3, 1),
            "receptive field": layer.receptive_field,
            "stride": layer.stride,
        }
        for layer in costs
    ]


def totals(
    costs: list[cost.LayerCost], dtype: str, config: "Config | None" = None
) -> dict[str, Any]:
    """Returns the sums over the layers, and what training by a config comes to.

    Training takes three times the arithmetic of the forward pass; its memory is that of
    `cost.training_bytes`, on one device.
    """
    total = cost.total(costs)
    sums = {
        "parameters": total.params,
        "GMAC per image": round(total.macs / 1e9, 4),
    }
    if config is None:
        return sums
    estimate = cost.training_bytes(
        costs,
        batch_size=config.batch_size // config.shards,
        dtype=dtype,
        remat=config.model.remat,
        shards=config.shards,
        fused=config.model.conv == "auto" and machine.prefers_kernels(dtype),
    )
    sums["training memory, estimated MB"] = round(sum(estimate) / 1e6)
    if config.data.name in _SPLITS:
        sums |= images_of(config)
        flop = 6 * total.macs * sums["training images"]
        sums["PFLOP per epoch"] = round(flop / 1e15, 6)
    return sums


def images_of(config: "Config") -> dict[str, int]:
    """Returns how many images a config trains and validates on, of a set known here.

    Raises:
        ConfigError: a split does not exist, it is empty, or two overlap.
    """
    import numpy as np
    import tensorflow_datasets as tfds  # of [train]

    from vgg_jax.data import splits

    infos: Any = {
        name: tfds.core.SplitInfo(
            name=name, shard_lengths=[count], num_bytes=0, filename_template=None
        )
        for name, count in _SPLITS[config.data.name].items()
    }
    spans_of = partial(splits.spans_of, config.data.name, infos)
    spans = {"train": spans_of(config.data.train, "data.train")}
    asked = config.data.validation
    if asked == splits.SKLEARN_80_20:
        no_ids = lambda split: np.empty(0)
        spans["train"], spans["validation"] = splits.sklearn_80_20(
            spans["train"], no_ids
        )
    elif asked != "none":
        spans["validation"] = spans_of(asked, "data.validation")
    splits.check_disjoint(spans)
    count = lambda role: sum(map(len, spans.get(role, {}).values()))
    return {
        "training images": count("train"),
        "validation images": count("validation"),
    }


def comparison(model: VGG, size: int) -> list[dict[str, Any]]:
    """Returns one row per configuration of the paper, otherwise like `model`."""
    table = []
    for variant in architecture.CONFIGURATIONS:
        network = model.clone(variant=variant)
        specs = network.layers((size, size))
        costs = cost_table(network, size)
        total = cost.total(costs)
        convolutions = [layer for layer in costs if layer.name.startswith("conv")]
        table.append(
            {
                "configuration": variant,
                "weight layers": sum(spec.has_kernel for spec in specs),
                "parameters": total.params,
                "conv parameters": sum(layer.params for layer in convolutions),
                "GMAC": round(total.macs / 1e9, 3),
                "receptive field": convolutions[-1].receptive_field,
            }
        )
    return table


def show(rows: list[dict[str, Any]], form: str, title: str = "") -> None:
    """Prints equal dictionaries as a table."""
    if form == "markdown":
        print("| " + " | ".join(rows[0]) + " |")
        print("|" + "---|" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(map(_text, row.values())) + " |")
        return
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for key, value in rows[0].items():
        table.add_column(key, justify="right" if _is_number(value) else "left")
    for row in rows:
        table.add_row(*map(_text, row.values()))
    width = None if sys.stdout.isatty() else 110
    Console(width=width, soft_wrap=False).print(table)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if _is_number(value) else str(value)
