"""How a classifier becomes a localiser: the choices of the paper's appendix A."""

import dataclasses

from vgg_jax.errors import ConfigError
from vgg_jax.fields import check, count, field, in_range, one_of, positive
from vgg_jax.training.schedule import Schedule
from vgg_jax.training.sgd import SGD

LAYERS = ("all", "dense")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxRegression:
    """How a classifier becomes a localiser.

    Attributes:
        per_class: a box per class (PCR), or one for all (SCR).
        layers: that train: "all" of them, or the "dense" ones only: the paper's "first
            two fully connected", and the last, which always does.
        scale: smaller side in pixels to which pictures are scaled before the crop, at
            least the size of the classifier's training; the paper's are 256 and 384.
        epochs: passes over the pictures.
        batch_size: pictures per update.
        lr: initial learning rate; the paper's is 0.001.
        schedule: of the learning rate; any but "plateau", as nothing is validated.
        optimizer: SGD; the paper's L2 of 5e-4 by default.
        seed: of the new layer, the order, the crops and dropout.

    Raises:
        ConfigError: a field is unknown or out of its range.
    """

    per_class: bool = True
    layers: str = field("all", one_of(LAYERS))
    scale: int = field(256, count(1))
    epochs: int = field(10, count(1))
    batch_size: int = field(256, count(1))
    lr: float = field(1e-3, positive())
    schedule: Schedule = Schedule(name="cosine")
    optimizer: SGD = SGD(decay="l2")
    seed: int = field(0, in_range(0, 2**32))

    def __post_init__(self) -> None:
        check(self)
        if self.schedule.name == "plateau":
            raise ConfigError(
                "schedule.name='plateau' needs a validation, and there is none here: "
                "use cosine, triangular, step or constant"
            )
