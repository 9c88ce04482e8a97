"""Whether a training fits the memory of its device, before anything is allocated."""

from jax.sharding import Mesh

from vgg_jax import machine, memory
from vgg_jax.errors import ConfigError
from vgg_jax.nn import cost
from vgg_jax.training import division, placement
from vgg_jax.training.config import Config

_SLACK = 1.25  # of the estimate, which was -13% to +18% off on CPU


def check(
    config: Config,
    mesh: Mesh,
    classes: int = 1,
    image_shape: tuple[int, int, int] = (0, 0, 3),
) -> None:
    """Checks that the network of a config can be trained here.

    Args:
        config: the run's.
        mesh: the devices that share each batch; on a CPU they share its memory, too.
        classes: of the data set; where it is not known yet, one.
        image_shape: `(H, W, C)` of an image of the data set; where it is not known yet,
            nothing is checked unless the config resizes.

    Raises:
        ConfigError: weights, velocity and gradients alone are more than the device has,
            or with the activations of a batch they exceed it by a quarter.
    """
    height, width, channels = image_shape
    size = (config.augment.resize or height, config.augment.resize or width)
    there = _available(mesh)
    if there is None or not all(size):
        return
    model = config.model.clone(num_classes=config.num_classes or classes)
    rows = cost.costs(model.layers(size, channels), norm_scale=model.norm_scale)
    state, activations = cost.training_bytes(
        rows,
        batch_size=division.images_at_once(config, mesh),
        dtype=str(model.dtype),
        remat=model.remat,
        shards=config.shards // mesh.size,
        fused=_on_cpu(mesh)
        and model.conv == "auto"
        and machine.prefers_kernels(str(model.dtype)),
    )
    parameters = cost.total(rows).params
    state -= placement.spared(
        config.mesh.state,
        mesh.size,
        parameters,
        model=config.mesh.model,
        divided=placement.divided(rows, config.mesh.model),
    )
    if state > there or state + activations > _SLACK * there:
        raise ConfigError(
            f"training model.width={model.width:g} on batch_size={config.batch_size} "
            f"images of {size[0]}x{size[1]} would take about {_gb(state)} for weights, "
            f"velocity and gradients and {_gb(activations)} for activations, and "
            f"{_gb(there)} are there: lower model.width, model.hidden or "
            "model.num_classes for the first, batch_size or augment.resize for the "
            "second, or set model.remat=stage or shards"
        )


def _available(mesh: Mesh) -> int | None:
    """Returns the bytes that each device has; None where it does not say."""
    device = mesh.local_devices[0]
    if _on_cpu(mesh):
        whole = memory.available()
        return whole and whole // len(mesh.local_devices)
    return (device.memory_stats() or {}).get("bytes_limit")


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.local_devices[0].platform == "cpu"


def _gb(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
