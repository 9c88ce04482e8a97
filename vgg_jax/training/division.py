"""How a batch is divided among devices, and whether it can be."""

import jax
from jax.sharding import Mesh

from vgg_jax.errors import ConfigError
from vgg_jax.training import shards
from vgg_jax.training.config import Config, check_convolution


def check(config: Config, mesh: Mesh) -> None:
    """Checks that batches, or their shards, can be divided among the devices.

    Args:
        config: the run's.
        mesh: its devices.

    Raises:
        ConfigError: the numbers do not divide one another.
    """
    devices, count, batch = mesh.size, config.shards, config.batch_size
    model, one = config.mesh.model, "mesh.data=1"
    groups = ""
    if model > 1:
        groups = f" (mesh.data={devices // model} groups of mesh.model={model})"
        one += " and mesh.model=1"
    if config.mesh.state != "replicated" and jax.process_count() > 1:
        if mesh.devices.flat[0].platform == "cpu":
            raise ConfigError(
                f"mesh.state={config.mesh.state} in several processes is for GPUs and "
                "TPUs: of programs from its cache, XLA's CPU may mix the sums up; set "
                "replicated"
            )
    if count > 1 and count % devices:
        fits = max(n for n in range(1, devices + 1) if count % n == 0)
        raise ConfigError(
            f"shards={count} cannot be divided among {devices} devices: set "
            f"mesh.data={fits}"
        )
    if count == 1 and batch % devices:
        raise ConfigError(
            f"batch_size={batch} cannot be divided among {devices} devices{groups}: "
            f"use {-(-batch // devices) * devices}, or {one}"
        )
    if count == 1 < devices and config.remainder == "keep":
        raise ConfigError(
            f"remainder='keep' gives a last batch that {devices} devices may not "
            f"divide: set remainder=drop, or {one}"
        )
    check_convolution(config, images_at_once(config, mesh))


def images_at_once(config: Config, mesh: Mesh) -> int:
    """Returns how many images of a batch a device computes at the same time."""
    return config.batch_size // shards.parts(config.shards, mesh)
