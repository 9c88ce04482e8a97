"""What a config's network is and costs, layer by layer; nothing is allocated.

    python -m vgg_jax.cli.summary --config=configs/vgg16.py
    python -m vgg_jax.cli.summary --config=configs/vgg16.py --compare
    python -m vgg_jax.cli.summary --claims
    python -m vgg_jax.cli.summary --config=configs/vgg16.py --format=json

Formats: text, markdown, json.
"""

import json
import sys

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from rich import box
from rich.console import Console
from rich.table import Table

from vgg_jax.cli import command as command_line
from vgg_jax.errors import ConfigError, guarded
from vgg_jax.nn import cost as layers
from vgg_jax.nn import vgg as model
from vgg_jax.training import config as config_lib

_CLASSES = {"cifar10": 10, "cifar10_sample": 10, "cifar100": 100}
_TRAINING = {"cifar10": 50_000, "cifar10_sample": 4_000, "cifar100": 50_000}
_PIXELS = 32  # of the sets above
_WIDTH = {"float32": 4, "bfloat16": 2}  # bytes


def network(config: ConfigDict) -> dict:
    """Arguments of `layers.table` for a resolved config.

    Raises:
        ConfigError: size or number of classes of the data set are not known here.
    """
    name, size = config.data.name, config.augment.resize
    classes = config.model.num_classes or _CLASSES.get(name)
    if not size and name in _CLASSES:
        size = _PIXELS
    if not size or not classes:
        raise ConfigError(
            f"data.name={name!r}: set augment.resize and model.num_classes, which only "
            "the prepared data set could tell"
        )
    taken = ("variant", "width", "batch_norm", "norm_scale", "whiten", "head", "hidden")
    return {"size": size, "classes": classes, **{k: config.model[k] for k in taken}}


def rows(table: list[layers.Layer], dtype: str) -> list[dict]:
    """One dictionary a layer; bytes are of one image's activation."""
    return [
        {
            "name": layer.name,
            "output": "x".join(map(str, layer.shape)),
            "parameters": layer.params,
            "MMAC": round(layer.macs / 1e6, 3),
            "activation kB": round(layer.elements * _WIDTH[dtype] / 1e3, 1),
            "receptive field": layer.receptive_field,
            "stride": layer.stride,
        }
        for layer in table
    ]


def totals(config: ConfigDict, table: list[layers.Layer]) -> dict:
    """Sums over the layers, and what training by this config comes to.

    Training takes three times the arithmetic of the forward pass. Its memory is
    estimated as weights, velocity and gradients in float32, and two copies of every
    activation of a batch (before and after the non-linearity).
    """
    total = layers.total(table)
    kept = sum(layer.elements for layer in table) * _WIDTH[config.model.dtype]
    found = {
        "parameters": total.params,
        "GMAC an image": round(total.macs / 1e9, 4),
        "training memory, estimated MB": round(
            (3 * 4 * total.params + 2 * config.batch_size * kept) / 1e6
        ),
    }
    if config.data.name in _TRAINING:
        images = _TRAINING[config.data.name]
        images -= images // 5 if config.data.validation == "blog" else 0
        found["training images"] = images
        found["PFLOP an epoch"] = round(6 * total.macs * images / 1e15, 4)
    return found


def comparison(arguments: dict) -> list[dict]:
    """The paper's six configurations beside each other."""
    found = []
    for variant in model.CONFIGURATIONS:
        table = layers.table(**{**arguments, "variant": variant})
        total = layers.total(table)
        names = [layer.name for layer in table]
        convolutions = [layer for layer in table if layer.name.startswith("conv")]
        found.append(
            {
                "configuration": variant,
                "weight layers": sum(n.startswith(("conv", "fc")) for n in names),
                "parameters": total.params,
                "conv parameters": sum(layer.params for layer in convolutions),
                "GMAC": round(total.macs / 1e9, 3),
                "receptive field": convolutions[-1].receptive_field,
            }
        )
    return found


def _field(kernels):
    return 1 + sum(kernel - 1 for kernel in kernels)


def claims() -> list[dict]:
    """The arithmetic that the paper and the blog argue with, worked out.

    C is the number of channels in and out, biases left out, stride 1.
    """
    two, three, seven = _field([3, 3]), _field([3, 3, 3]), 7
    c = 512
    stack, single = 3 * 9 * c * c, 49 * c * c
    with_1x1 = layers.total(layers.table("C"))
    without = layers.total(layers.table("B"))
    with_3x3 = layers.total(layers.table("D"))
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
            f"B {_last(layers.table('B'))}, C {_last(layers.table('C'))}, "
            f"D {_last(layers.table('D'))} pixels. Not exact for C: its 1x1 layers "
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


def _last(table):
    return [x for x in table if x.name.startswith("conv")][-1].receptive_field


def show(found: list[dict], form: str, title: str = "") -> None:
    """Prints equal dictionaries as a table."""
    if form == "markdown":
        print("| " + " | ".join(found[0]) + " |")
        print("|" + "---|" * len(found[0]))
        for row in found:
            print("| " + " | ".join(map(_text, row.values())) + " |")
        return
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for key, value in found[0].items():
        table.add_column(key, justify="right" if _is_number(value) else "left")
    for row in found:
        table.add_row(*map(_text, row.values()))
    width = None if sys.stdout.isatty() else 110
    Console(width=width, soft_wrap=False).print(table)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if _is_number(value) else str(value)


_CONFIG = config_flags.DEFINE_config_file(
    "config",
    "configs/vgg16.py",
    "a file of configs/, its fields as in main.py",
)
_COMPARE = flags.DEFINE_bool("compare", False, "the six configurations side by side")
_CLAIMS = flags.DEFINE_bool("claims", False, "the blog's arithmetic, checked")
_FORMAT = flags.DEFINE_enum(
    "format", "text", ("text", "markdown", "json"), "of the output"
)


def main(argv):
    command_line.parse(argv, _CONFIG)
    form = _FORMAT.value
    if _CLAIMS.value:
        parts = {"claims": claims()}
    else:
        config = config_lib.resolve(_CONFIG.value)
        arguments = network(config)
        table = layers.table(**arguments)
        if _COMPARE.value:
            parts = {"configurations": comparison(arguments)}
        else:
            parts = {
                "layers": rows(table, config.model.dtype),
                "total": [totals(config, table)],
            }
    if form == "json":
        print(json.dumps(parts, indent=2))
        return
    for title, found in parts.items():
        show(found, form, title)


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)
    app.define_help_flags()
    guarded(main, sys.argv)
