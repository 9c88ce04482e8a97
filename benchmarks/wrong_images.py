"""Wrong uses of features and losses: the second table of `benchmarks.wrong_uses`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import vgg_jax
from vgg_jax.inference.losses import content_loss, perceptual_loss, style_loss
from vgg_jax.inference.lpips import load_heads
from vgg_jax.inference.manifold import precision_recall
from vgg_jax.nn.preprocessing import PREPROCESSING

Use = Callable[[Path], Any]
BYTES = np.tile(np.arange(0, 256, 8, np.uint8)[:, None, None], (2, 1, 32, 3))
UNIT = BYTES.astype(np.float32) / 255


def trunk(variant: str = "D", preprocessing: str = "imagenet", **fields: Any):
    """Returns a network without weights: what is wrong is seen before they are used."""
    model = vgg_jax.VGG(variant, **({"head": "compact"} | fields))
    return vgg_jax.Network({"params": {}}, model, PREPROCESSING[preprocessing])


def small(**fields: Any) -> vgg_jax.Network:
    """Returns a network of two stages."""
    model = vgg_jax.VGG("conv3-4 | conv3-8 |", 10, head="compact", **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(UNIT.shape))
    params = jax.tree.map(lambda s: np.full(s.shape, 0.1, "f4"), shapes["params"])
    return vgg_jax.Network(
        {"params": params}, model, PREPROCESSING["imagenet"], source="vgg.safetensors"
    )


def sees(images: Any, layers: Any = ("pool2",), **said: Any) -> Use:
    """Returns a use that asks for features."""
    return lambda _: vgg_jax.features(small(), images, layers, **said)


def compares(network: Callable[[], vgg_jax.Network], others: Any = UNIT) -> Use:
    """Returns a use of LPIPS."""
    return lambda _: vgg_jax.lpips(network(), UNIT, others, value_range=(0, 1))


def reads_heads(edit: Callable[[dict[str, np.ndarray]], Any]) -> Use:
    """Returns a use that reads LPIPS' heads with something changed."""

    def use(scratch: Path) -> Any:
        heads = {
            f"lin{i}.model.1.weight": weight.reshape(1, -1, 1, 1)
            for i, weight in enumerate(load_heads())
        }
        save_file(edit(heads) or heads, scratch / "heads.safetensors")
        return load_heads(scratch / "heads.safetensors")

    return use


def _alexnet(_: Any) -> dict[str, np.ndarray]:
    """Heads of `lpips.LPIPS(net="alex")`, by their shapes."""
    channels = (64, 192, 384, 256, 256)
    shapes = {f"lin{i}.model.1.weight": (1, c, 1, 1) for i, c in enumerate(channels)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def _random(network: vgg_jax.Network, *layers: str) -> vgg_jax.Network:
    return network.replace(random_layers=layers)


def _forward_mode(_: Path) -> Any:
    see = lambda x: vgg_jax.features(small(), x, ["relu2_1"], value_range=(0, 1))
    return jax.jvp(see, (jnp.asarray(UNIT),), (jnp.ones(UNIT.shape),))


def _loses_a_layer(loss: Callable, **activations: Any) -> Use:
    return lambda _: loss(activations, {"relu1_1": jnp.asarray(UNIT)})


_perceptual = partial(perceptual_loss, value_range=(0, 1), content=["relu2_1"])
_headless = partial(vgg_jax.features, images=BYTES, layers=["fc8"])
# What is wrong -> the use.
IMAGES: dict[str, Use] = {
    "floats without a range": sees(UNIT),
    "[0, 255] said to be [0, 1]": sees(UNIT * 255, value_range=(0, 1)),
    "[-1, 1] said to be [0, 1]": sees(UNIT * 2 - 1, value_range=(0, 1)),
    "values that bicubic interpolation overshot": sees(UNIT * 1.05, value_range=(0, 1)),
    "uint8 said to be [0, 1]": sees(BYTES, value_range=(0, 1)),
    "whole numbers in int32": sees(BYTES.astype(np.int32)),
    "a NaN among the pixels": sees(
        np.where(UNIT > 0.9, np.nan, UNIT), value_range=(0, 1)
    ),
    "white below black": sees(UNIT, value_range=(1, 0)),
    "a range that is a word": sees(UNIT, value_range="unit"),
    "channels first": sees(BYTES.transpose(0, 3, 1, 2)),
    "one image, without a batch": sees(BYTES[0]),
    "a grey image": sees(BYTES[..., :1]),
    "an image with transparency": sees(BYTES.repeat(2, -1)[..., :4]),
    "an image that vanishes before the layer": sees(BYTES[:, :3, :3]),
    "a layer that is unknown": sees(BYTES, ["relu3_3"]),
    "a layer in another program's numbers": sees(BYTES, ["features.29"]),
    "a layer that is not in a tuple": sees(BYTES, "relu1_1"),
    "no layer": sees(BYTES, []),
    "logits of a network without a head": lambda _: _headless(
        small().replace(variables={"params": {"conv1_1": 0, "conv2_1": 0}})
    ),
    "other algorithms for other weights": lambda _: small().configured(width=2.0),
    "forward mode through the CPU's convolutions": _forward_mode,
    "a perceptual loss of a random network": lambda _: _perceptual(
        _random(small(), "conv1_1", "conv2_1", "fc8"), UNIT, UNIT
    ),
    "a perceptual loss of images of two sizes": lambda _: _perceptual(
        small(), UNIT, UNIT[:, :16]
    ),
    "a loss that is compared with other layers": _loses_a_layer(
        content_loss, relu1_2=jnp.asarray(UNIT)
    ),
    "the style of a dense layer": _loses_a_layer(style_loss, relu1_1=jnp.ones((2, 3))),
    "LPIPS on a random trunk": compares(lambda: _random(trunk(), "conv1_1")),
    "LPIPS on VGG-19": compares(lambda: trunk("E")),
    "LPIPS on VGG-16-BN": compares(lambda: trunk(batch_norm=True)),
    "LPIPS on Keras' weights, which see BGR": compares(
        lambda: trunk(preprocessing="keras")
    ),
    "LPIPS with average pooling": compares(lambda: trunk(pool="average")),
    "LPIPS of images of two sizes": compares(trunk, UNIT[:, :16]),
    "LPIPS of an image and a batch": compares(trunk, UNIT[:1]),
    "AlexNet's heads of LPIPS": reads_heads(_alexnet),
    "four heads of LPIPS": reads_heads(
        lambda heads: heads.pop("lin4.model.1.weight") is None
    ),
    "a negative head of LPIPS": reads_heads(
        lambda heads: {name: -weight for name, weight in heads.items()}
    ),
    "precision and recall of three images": lambda _: precision_recall(
        np.zeros((3, 8)), np.zeros((9, 8))
    ),
    "precision and recall of two networks' features": lambda _: precision_recall(
        np.zeros((9, 8)), np.zeros((9, 4))
    ),
}
