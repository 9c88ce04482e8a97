"""What a training would take on devices that you do not have yet.

    python -m vgg_jax plan --config=configs/vgg16.py --topology=h100:8

For a TPU slice (v5e:4x4, v5p:2x2x2, v6e:16x16) the training step itself is compiled
ahead of time, which needs TPU's compiler and no TPU: pip install libtpu. For GPUs
(a100, h100, h200, and how many) nothing is compiled: memory and time are estimates.

Times are what the makers' peak rates allow, which no program reaches. Bytes to and from
memory are XLA's count, some of which may stay on the chip. "auto" is bfloat16.
"""

import argparse
import json
from typing import TYPE_CHECKING, Any

from vgg_jax.cli import config_file, summary

if TYPE_CHECKING:
    from vgg_jax.training import plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    config_file.add_arguments(parser, required=True)
    parser.add_argument(
        "--topology", required=True, help="a chip and how many: v5e:4x4, h100:8"
    )
    parser.add_argument(
        "--format", default="text", choices=summary.FORMATS, help="form of the table"
    )


def run(options: argparse.Namespace) -> None:
    """Prints the plan.

    Raises:
        ConfigError: see `training.plan.plan`.
    """
    from vgg_jax.training import plan as plans
    from vgg_jax.training.config import resolve

    plans.parse(options.topology)
    fields: Any = config_file.load(options.config, options.settings)
    if fields.model.dtype == "auto":
        fields.model.dtype = "bfloat16"
    config = resolve(fields)
    model, size = summary.network(config)
    planned = plans.plan(config, options.topology, classes=model.num_classes, size=size)
    row = described(planned)
    if options.format == "json":
        print(json.dumps(row, indent=2))
        return
    title = f"a training step of {options.config} on {options.topology}, per device"
    rows = [{"what": name, "value": value} for name, value in row.items()]
    summary.show(rows, options.format, title)


def described(planned: "plan.Plan") -> dict[str, str]:
    """Returns what a plan says, in words and units."""
    chip, seconds = planned.chip, planned.seconds
    source = "estimated, nothing was compiled"
    if planned.compiled:
        source = "compiled ahead of time by TPU's own compiler"
    said = {
        "devices": f"{planned.devices}",
        "how known": source,
        "images": f"{planned.images} of {planned.images * planned.devices}",
        "memory at the peak": f"{planned.memory / 1e9:.2f} GB of {chip.memory / 1e9:g}",
        "arithmetic": f"{planned.flops / 1e12:.3f} TFLOP",
    }
    if planned.traffic is not None:
        said["to and from memory"] = f"{planned.traffic / 1e9:.2f} GB"
    for name, (number, size) in planned.collectives.items():
        said[name] = f"{number} of {size / 1e6:.1f} MB together"
    for name, time in seconds.items():
        said[f"time of {name}, at peak rate"] = f"{1e3 * time:.3f} ms"
    total = planned.images * planned.devices
    said["a step, if all overlaps"] = _rate(max(seconds.values()), total)
    said["a step, if nothing does"] = _rate(sum(seconds.values()), total)
    return said


def _rate(seconds: float, images: int) -> str:
    return f"{1e3 * seconds:.3f} ms, {images / seconds:,.0f} images/s"
