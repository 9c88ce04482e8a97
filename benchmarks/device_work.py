"""Counts what each device computes and sends in a training step, on 1 to 8 devices.

The real step is compiled, and not run, for virtual devices of this CPU. The operations
are XLA's count for the program of one device, and of a conditional its dearest branch.
Without redundant work n devices would do 1/n each of what one does; "ratio" is how many
times that they do, and "redundant" what of it each of them repeats.

    python -m benchmarks.device_work --config=configs/vgg16_bn.py
    python -m benchmarks.device_work --config=configs/vgg16.py:D \
        --modes=replicated,model=4 --config.augment.resize=224

"MB held" are the state and the images of the batch. Shards are counted as one per
device, since XLA counts a loop once. Bytes are those of the results of collectives.
Convolutions are XLA's own (`model.conv=lax`), whose operations do not depend on the
algorithm that a CPU is fast at.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vgg_jax import backend, machine
from vgg_jax.cli import config_file

DEVICES = 1, 2, 4, 8
# Name -> the fields of the config that make it, for n devices.
MODES = {
    "replicated": lambda n: {},
    "shards": lambda n: {"shards": n},
    "zero1": lambda n: {"mesh.state": "zero1"},
    "fsdp": lambda n: {"mesh.state": "fsdp"},
    "model=4": lambda n: {"mesh.model": min(n, 4)},  # for networks with dense layers
}
FIXED = {"model.dtype": "float32", "model.conv": "lax"}


class Work(NamedTuple):
    """What one device does in a step.

    Attributes:
        flops: operations.
        held: bytes of its arguments.
        sent: number and bytes of the results of collectives, by name.
    """

    flops: float
    held: float
    sent: Mapping[str, tuple[int, int]]


def work(
    config: str, settings: Sequence[str], fields: dict[str, Any], devices: int
) -> Work:
    """Returns what each device does in a step.

    Args:
        config: file, and `settings` of it, as on the command line.
        settings: `--config.name=value`.
        fields: dotted names of other fields, and their values.
        devices: the first so many that JAX sees.
    """
    import jax

    from vgg_jax import mesh as meshes
    from vgg_jax.cli import summary
    from vgg_jax.training import ahead_of_time, collectives
    from vgg_jax.training.config import resolve

    fields_set: Any = config_file.load(config, list(settings))
    fields_set.update_from_flattened_dict(FIXED | fields)
    resolved = resolve(fields_set)
    model, size = summary.network(resolved)
    mesh = meshes.of(jax.devices()[:devices], resolved.mesh.model)
    program = ahead_of_time.compiled(
        resolved, mesh, classes=model.num_classes, size=size
    )
    return Work(
        program.cost_analysis()["flops"],
        program.memory_analysis().argument_size_in_bytes,
        collectives.of_program(program.as_text()),
    )


def row(mode: str, devices: int, own: Work, one: float) -> str:
    """Returns a line of the table, in Markdown.

    >>> row("zero1", 2, Work(6e9, 3e6, {"all-reduce": (3, 2_000_000)}), 1e10)
    '| zero1 | 2 | 6.0 | 1.20 | 2.0 | 3 | 3 all-reduce, 2.0 MB |'
    """
    redundant = (devices * own.flops - one) / max(devices - 1, 1)
    crossing = "; ".join(
        f"{count} {name}, {size / 1e6:.1f} MB"
        for name, (count, size) in own.sent.items()
    )
    return (
        f"| {mode} | {devices} | {own.flops / 1e9:.1f} "
        f"| {devices * own.flops / one:.2f} | {redundant / 1e9:.1f} "
        f"| {own.held / 1e6:.0f} | {crossing or 'none'} |"
    )


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    config_file.add_arguments(parser, required=True)
    parser.add_argument(
        "--modes", default="replicated,shards,zero1,fsdp", help=f"of {', '.join(MODES)}"
    )
    options, settings = parser.parse_known_args()
    flag = f"--xla_force_host_platform_device_count={max(DEVICES)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"
    backend.configure()
    print(machine.environment(), flush=True)
    print(options.config, *settings)
    print(
        "| state | devices | GFLOP each | ratio | redundant | MB held | collectives |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for mode in options.modes.split(","):
        one = 0.0
        for devices in DEVICES:
            fields = MODES[mode](devices)
            own = work(options.config, settings, fields, devices)
            one = one or own.flops  # of the first, a single device
            print(row(mode, devices, own, one), flush=True)


if __name__ == "__main__":
    main()
