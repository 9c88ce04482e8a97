"""What a training would take on devices that are not here."""

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jax.sharding import Mesh

from vgg_jax import mesh as meshes
from vgg_jax.errors import ConfigError, choose
from vgg_jax.nn import cost
from vgg_jax.training import ahead_of_time, collectives, division, placement
from vgg_jax.training.config import Config


class Chip(NamedTuple):
    """What one device can do, as its maker states it.

    Attributes:
        flops: bfloat16 operations per second, at most.
        memory: bytes.
        bandwidth: of its memory, bytes per second.
        links: bytes per second that it sends to the others of its pod or machine.
        kind: "tpu" or "gpu".
    """

    flops: float
    memory: float
    bandwidth: float
    links: float
    kind: str = "tpu"


# TPUs: Google Cloud's pages of v5e, v5p and v6e (links: "1600 Gbps" and so on). GPUs:
# data sheets of the SXM modules, dense; links: NVLink in one direction.
CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "v5p": Chip(459e12, 95e9, 2765e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1600e9, 400e9),
    "a100": Chip(312e12, 80e9, 2039e9, 300e9, "gpu"),
    "h100": Chip(989e12, 80e9, 3350e9, 450e9, "gpu"),
    "h200": Chip(989e12, 141e9, 4800e9, 450e9, "gpu"),
}


# libtpu compiles only: it need not lock a TPU, nor ask Google Cloud which one it is on.
_COMPILES_ONLY = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


class Plan(NamedTuple):
    """What a training step takes per device.

    Attributes:
        chip, devices: what it was planned for.
        images: of a batch, per device.
        memory: bytes, at its peak.
        flops: operations.
        traffic: bytes to and from memory; None where only a compiler could know.
        collectives: number and bytes of the results, by name.
        sent: bytes that go to other devices, in rings.
        compiled: whether the device's own compiler said so; else it is estimated.
    """

    chip: Chip
    devices: int
    images: int
    memory: float
    flops: float
    traffic: float | None
    collectives: dict[str, tuple[int, int]]
    sent: float
    compiled: bool

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that each kind of work takes, at the rates that the maker states."""
        found = {
            "arithmetic": self.flops / self.chip.flops,
            "memory": (self.traffic or 0) / self.chip.bandwidth,
            "links": self.sent / self.chip.links,
        }
        return {name: time for name, time in found.items() if time}


def parse(topology: str) -> tuple[str, int]:
    """Returns the chip of a topology, and how many there are.

    Raises:
        ConfigError: it is none.

    >>> parse("v5e:4x4"), parse("h100:8")
    (('v5e', 16), ('h100', 8))
    """
    found = re.fullmatch(r"(?P<chip>\w+):(?P<sides>\d+(x\d+)*)", topology)
    if not found or not (count := math.prod(map(int, found["sides"].split("x")))):
        raise ConfigError(
            f"--topology={topology} is none: write a chip and how many, v5e:4x4, h100:8"
        )
    choose(CHIPS, found["chip"], "the chip of --topology")
    return found["chip"], count


def plan(config: Config, topology: str, *, classes: int, size: int) -> Plan:
    """Plans a training by a config: for TPUs, by compiling its step ahead of time.

    Args:
        config: the run's; its `dtype` is that of the planned devices.
        topology: see `parse`.
        classes: of the data set.
        size: height and width of its images, in pixels.

    Raises:
        ConfigError: there is no such topology, the batch does not divide among its
            devices, or libtpu is not installed.
    """
    name, count = parse(topology)
    chip, side = CHIPS[name], config.augment.resize or size
    rows = cost.costs(
        config.model.clone(num_classes=classes).layers((side, side)),
        norm_scale=config.model.norm_scale,
    )
    if chip.kind == "gpu":
        return _estimated(config, chip, count, rows)
    mesh = _mesh(topology, config.mesh.model)
    division.check(config, mesh)
    step = partial(ahead_of_time.compiled, mesh=mesh, classes=classes, size=size)
    program = counting = step(config)
    if config.shards > mesh.size:  # XLA counts once what a loop does for each shard
        flat = dataclasses.replace(config, shards=mesh.size)
        counting = step(flat)
    memory, counted = program.memory_analysis(), counting.cost_analysis()
    crossing = collectives.of_program(counting.as_text())
    return Plan(
        chip=chip,
        devices=mesh.size,
        images=config.batch_size // mesh.size,
        memory=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        flops=counted["flops"],
        traffic=counted["bytes accessed"],
        collectives=crossing,
        sent=collectives.sent(crossing, mesh.size),
        compiled=True,
    )


def _estimated(
    config: Config, chip: Chip, count: int, rows: Sequence[cost.LayerCost]
) -> Plan:
    """Plans without a compiler."""
    model = config.mesh.model
    if config.batch_size % count or count % model:
        raise ConfigError(
            f"batch_size={config.batch_size} cannot be divided among {count} devices"
            + f" in groups of mesh.model={model}" * (model > 1)
        )
    images = config.batch_size // count
    total = cost.total(list(rows))
    estimate = cost.training_bytes(
        rows,
        batch_size=min(images, config.batch_size // config.shards),
        dtype=str(config.model.dtype),
        remat=config.model.remat,
        shards=max(config.shards // count, 1),
    )
    divided = placement.divided(rows, model)
    crossing = _crossing(config, rows, images, count)
    numbers = Counter(kind for kind, *_ in crossing)
    sizes = {
        name: sum(size for kind, size, _ in crossing if kind == name)
        for name in numbers
    }
    return Plan(
        chip=chip,
        devices=count,
        images=images,
        memory=sum(estimate)
        - placement.spared(
            config.mesh.state, count, total.params, model=model, divided=divided
        ),
        flops=6 * total.macs * images,
        traffic=None,
        collectives={name: (numbers[name], sizes[name]) for name in numbers},
        sent=sum(collectives.RING[kind](ring) * size for kind, size, ring in crossing),
        compiled=False,
    )


def _crossing(
    config: Config, rows: Sequence[cost.LayerCost], images: int, count: int
) -> list[tuple[str, int, int]]:
    """Returns kind, bytes and devices of what is sent, but for the logits.

    Gradients are added up over all devices, those of divided columns over the groups.
    In a group, dense layers take the inputs of all its images, and add up their
    gradient.
    """
    model = config.mesh.model
    dense = [row for row in rows if placement.divided([row], model)]
    columns = sum(row.params for row in dense)
    rest = cost.total(list(rows)).params - columns
    crossing = [
        ("all-reduce", 4 * rest, count),
        ("all-reduce", 4 * columns // model, count // model),
    ]
    value = images * model * cost.BYTES[str(config.model.dtype)]
    for row in dense:
        inputs = value * row.macs // row.elements
        crossing += [("all-gather", inputs, model), ("all-reduce", inputs, model)]
    return [sent for sent in crossing if sent[1] and sent[2] > 1]


def _mesh(topology: str, model: int) -> Mesh:
    from jax.experimental import topologies

    for name, value in _COMPILES_ONLY.items():
        os.environ.setdefault(name, value)
    try:
        found = topologies.get_topology_desc(topology, platform="tpu")
    except Exception as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"--topology={topology} cannot be compiled for ({said}): install TPU's "
            "compiler, pip install libtpu, and name a slice that exists"
        ) from error
    return meshes.of(found.devices, model)
