"""How a batch is divided among devices and shards, and whether it can be."""

from jax.sharding import Mesh

from vgg_jax.errors import ConfigError
from vgg_jax.training import shards
from vgg_jax.training.config import Config


def check(config: Config, mesh: Mesh) -> None:
    """Checks that batches can be divided among the devices.

    Args:
        config: the run's.
        mesh: its devices.

    Raises:
        ConfigError: the numbers do not divide one another.
    """
    devices, count, batch = mesh.size, config.shards, config.batch_size
    if count & (count - 1):
        raise ConfigError(
            f"shards={count} is no power of two, as adding them up in one order takes"
        )
    if count > 1 and count % devices:
        fits = max(n for n in range(1, devices + 1) if count % n == 0)
        raise ConfigError(
            f"shards={count} cannot be divided among {devices} devices: set "
            f"mesh.data={fits}"
        )
    parts, name = shards.parts(count, mesh), "shards" if count > 1 else "devices"
    if batch % parts:
        raise ConfigError(
            f"batch_size={batch} cannot be divided among {parts} {name}: use "
            f"{-(-batch // parts) * parts}"
            + (", or mesh.data=1 for one device" if count == 1 else "")
        )
    if parts > 1 and config.remainder == "keep":
        raise ConfigError(
            f"remainder='keep' gives a last batch that {parts} {name} cannot divide: "
            "set remainder=drop"
        )


def images_at_once(config: Config, mesh: Mesh) -> int:
    """Returns how many images of a batch a device computes at the same time."""
    return config.batch_size // shards.parts(config.shards, mesh)
