"""A network ready for use: weights, and all that belongs to them, as one value."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from vgg_jax import backend
from vgg_jax.errors import ConfigError
from vgg_jax.interop import layer_names
from vgg_jax.nn.architecture import HEAD as HEAD
from vgg_jax.nn.images import ValueRange, network_input
from vgg_jax.nn.preprocessing import Preprocessing, named
from vgg_jax.nn.vgg import PREPARED, VGG, prepared


class Network(struct.PyTreeNode):
    """A network, its weights and what they need: one value, a pytree of the weights.

    It can be passed to `jax.jit`, `jax.grad` and `jax.device_put` as it is; its
    leaves are those of `variables`. Call it with images for logits. Weights that were
    changed since go in by `with_variables`; `replace(variables=...)` keeps what is
    said of the old ones.

    Attributes:
        variables: `params` and, with batch norm, `batch_stats`: float32, unless they
            are `prepared`.
        model: the Flax module.
        preprocessing: what it expects of its images.
        size: height and width in pixels of the images that it was trained on; 0 where
            that is not known.
        class_names: one per logit; empty where they are not known.
        source: where the weights are from: a path, or "random"; empty where a program
            does not say.
        sha256: of the file that was read, or of the arrays of a run's checkpoint; 64
            hexadecimal digits. Empty where nothing was read.
        random_layers: layers whose weights are random, not read; the losses refuse a
            network that needs one of them.
    """

    variables: Mapping[str, Any]
    model: VGG = struct.field(pytree_node=False)
    preprocessing: Preprocessing = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False, default=0)
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    source: str = struct.field(pytree_node=False, default="")
    sha256: str = struct.field(pytree_node=False, default="")
    random_layers: tuple[str, ...] = struct.field(pytree_node=False, default=())

    @property
    def channels(self) -> int:
        """Number of channels of its images."""
        return self.variables["params"]["conv1_1"]["kernel"].shape[2]

    def __call__(
        self, images: ArrayLike, *, value_range: ValueRange | None = None
    ) -> jax.Array:
        """Returns logits, float32 `[B, num_classes]`.

        Args:
            images: `[B, H, W, C]`, RGB (or grey), uint8 or floating point.
            value_range: of floating-point images (`images.network_input`).

        Raises:
            ConfigError: the images are not what was declared, or too small; or the
                network has no head.

        >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
        >>> network(jax.numpy.zeros((2, 32, 32, 3), "uint8")).shape
        (2, 10)
        """
        return self.activations(images, (HEAD,), value_range=value_range)[HEAD]

    def activations(
        self,
        images: ArrayLike,
        layers: Sequence[str],
        *,
        value_range: ValueRange | None = None,
    ) -> dict[str, jax.Array]:
        """Returns the activations of layers; nothing is computed after the last one.

        Args:
            images: as in `__call__`.
            layers: names in any convention (`layer_names.resolve`).
            value_range: as in `__call__`.

        Returns:
            Name, as given -> activation, `[B, H, W, C]` or `[B, features]`, in the
            type in which the model computes.

        Raises:
            ConfigError: as `__call__`; or a name is unknown.
        """
        names = layer_names.resolve_all(self.model, layers)
        last = _last(self.model, names.values())
        seen = self.seen(images, last, value_range)
        self.check_map(seen.shape, last)
        found = _activations(self.model, self.variables, seen, tuple(names.values()))
        return {name: found[own] for name, own in names.items()}

    def seen(
        self, images: ArrayLike, last: str, value_range: ValueRange | None = None
    ) -> jax.Array:
        """Returns images as the module takes them, float32 `[B, H, W, C]`.

        Args:
            images: as in `__call__`.
            last: the last layer that is asked for, by our name.
            value_range: as in `__call__`.

        Raises:
            ConfigError: the images are not what was declared, or there are no weights
                for the layer.
        """
        self.check_weights(last)
        return network_input(images, self.preprocessing, value_range, self.channels)

    def with_variables(self, variables: Mapping[str, Any], source: str = "") -> Self:
        """Returns the network with other weights, of which nothing else is known.

        Args:
            variables: of the same shapes.
            source: where they are from.

        Raises:
            ConfigError: the network was prepared for inference.

        >>> network = random(VGG("conv3-8 |", 10, head="compact"), "unit")
        >>> trained = network.with_variables(network.variables, "my program")
        >>> trained.source, trained.sha256, trained.random_layers
        ('my program', '', ())
        """
        check_unprepared(self)
        return self.replace(
            variables=variables, source=source, sha256="", random_layers=()
        )

    def configured(self, **fields: Any) -> Self:
        """Returns the network with other fields of its model: `dtype`, `pool`, `conv`.

        The weights stay, so fields that change their shapes are refused.

        Raises:
            ConfigError: a field is unknown, out of its range, or changes the weights.

        >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
        >>> network.configured(pool="average").model.pool
        'average'
        """
        free = ("conv", "dropout", "dtype", "pool")
        for name in fields:
            if name not in free:
                raise ConfigError(
                    f"{name} belongs to the weights: only {', '.join(free)} can change"
                )
        check_unprepared(self)
        return self.replace(model=self.model.clone(**fields))

    def prepared(self, shape: tuple[int, int, int]) -> Self:
        """Returns the network for many calls with images of one shape.

        Its weights have the type of the computation, and on a CPU, where convolutions
        first transform their kernels, that is done once, in up to five times their
        memory (`vgg.prepared`). Images of another shape are right too, and take their
        time. Keep the network that it was made from: this one can be differentiated by
        its images, and neither trained, configured nor saved, nor given to what itself
        configures a network, such as `predict.predictions` and `of_network.score`.

        Args:
            shape: number, height and width of the images of a call.

        Raises:
            ConfigError: as `vgg.prepared`.

        >>> network = random(VGG("conv3-64 conv3-96 |", 10, head="compact"), "unit")
        >>> images = jax.numpy.zeros((1, 16, 16, 3), "uint8")
        >>> bool((network.prepared((1, 16, 16))(images) == network(images)).all())
        True
        """
        return self.replace(variables=prepared(self.model, self.variables, shape))

    def layers_until(self, last: str) -> tuple[str, ...]:
        """Returns our names of the weight layers and norms that a layer needs.

        >>> network = random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit")
        >>> network.layers_until("relu2_1")
        ('conv1_1', 'conv2_1')
        """
        last, needed = layer_names.resolve(self.model, last), []
        for row in layer_names.table(self.model):
            if row.spec.has_kernel or row.spec.kind == "batch_norm":
                needed.append(row.spec.name)
            if row.spec.name == last:
                break
        return tuple(needed)

    def check_map(self, shape: tuple[int, ...], last: str) -> None:
        """Checks that the first dense layer's weights are for images of this size."""
        _, height, width, channels = shape
        specs = self.model.layers((height, width), channels, last)
        first = next((spec for spec in specs if spec.kind == "dense"), None)
        if first is None:
            return
        rows = self.variables["params"][first.name]["kernel"].shape[0]
        if rows != first.inputs:
            raise ConfigError(
                f"images of {height}x{width} give {first.name} {first.inputs} values, "
                f"and its weights are for {rows}: scale the images to the size of "
                "training, apply it densely (nn.dense.activation_map), or train with "
                "head='adaptive'"
            )

    def check_weights(self, last: str) -> None:
        """Checks that there are weights for a layer and all before it.

        Raises:
            ConfigError: there are not: the file had no head.
        """
        missing = [
            x for x in self.layers_until(last) if x not in self.variables["params"]
        ]
        if missing:
            raise ConfigError(
                f"{self.source} has no {', '.join(missing)}: load it with "
                "num_classes=K for a new, random head"
            )


def check_network(network: Any) -> None:
    """Checks that what a caller passes is a network.

    Raises:
        ConfigError: it is something else: a path, a module, variables.
    """
    if not isinstance(network, Network):
        raise ConfigError(
            f"network={str(network)[:60]!r} is a {type(network).__name__}, not a "
            "Network: vgg_jax.load(path) returns one"
        )


def check_unprepared(network: Network) -> None:
    """Checks that a network has the weights that it was loaded or trained with.

    Raises:
        ConfigError: they were prepared for inference.
    """
    if PREPARED in network.variables:
        raise ConfigError(
            "this network was prepared for inference (Network.prepared), its weights "
            "rounded to the type of the computation: use the one that it was made from"
        )


def _last(model: VGG, names: Collection[str]) -> str:
    """Returns the last of layers, in the order in which they are applied."""
    return next(
        row.spec.name
        for row in reversed(layer_names.table(model))
        if row.spec.name in names
    )


@partial(jax.jit, static_argnames=("model", "names"))
def _activations(model, variables, images, names) -> dict[str, jax.Array]:
    last = _last(model, names)
    _, sown = model.apply(variables, images, last=last, mutable=["intermediates"])
    found = sown["intermediates"]["activations"]
    return {name: found[name][0] for name in names}


def random(
    model: VGG,
    preprocessing: str | Preprocessing,
    *,
    seed: int = 0,
    size: int = 0,
    channels: int = 0,
    class_names: tuple[str, ...] = (),
) -> Network:
    """Returns a network with random weights, which says so.

    Args:
        model: the network.
        preprocessing: one of `PREPROCESSING`, or its name.
        seed: of the weights.
        size: height and width in pixels of its images; 0: 224 for a "paper" head.
        channels: of its images; 0: those of the preprocessing, or 3.
        class_names: one per logit, or none.

    >>> random(VGG("conv3-8 | conv3-16 |", 10, head="compact"), "unit").random_layers
    ('conv1_1', 'conv2_1', 'fc8')
    """
    preprocessing = named(preprocessing)
    side = size or 224
    images = jnp.zeros((1, side, side, channels or max(3, len(preprocessing.mean))))
    init = jax.jit(model.init, compiler_options=backend.options_to_run_once())
    variables = init(jax.random.key(seed), images)
    variables.pop("intermediates", None)
    return Network(
        variables=variables,
        model=model,
        preprocessing=preprocessing,
        size=size,
        class_names=class_names,
        source="random",
        random_layers=tuple(variables["params"]),
    )
