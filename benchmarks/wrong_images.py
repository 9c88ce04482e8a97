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
from vgg_jax.evaluation.linear import Labelled, linear_probe
from vgg_jax.inference.losses import (
    content_loss,
    perceptual_loss,
    style_loss,
    total_variation,
)
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
    model = vgg_jax.VGG("conv3-4 | conv3-8 |", 10, **{"head": "compact"} | fields)
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


def _total(images: Any) -> Any:
    found = vgg_jax.features(small(), images, ["pool2"], value_range=(0, 1))
    return found["pool2"].sum()


def _loses_a_layer(loss: Callable, **activations: Any) -> Use:
    return lambda _: loss(activations, {"relu1_1": jnp.asarray(UNIT)})


def _probes(scale: Any = 1, tested: int = 9, **said: Any) -> Any:
    labels = np.arange(9) % 2 * scale
    train = Labelled(np.ones((9, 4)), labels)
    test = Labelled(np.ones((tested, 4)), labels[:tested])
    return linear_probe(train, test, **said)


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
    "[0, 255] said to be [0, 1], under jax.grad": lambda _: jax.grad(_total)(
        UNIT * 255
    ),
    "a range that is two letters": sees(UNIT, value_range="01"),
    "a range that is a word": sees(UNIT, value_range="unit"),
    "channels first": sees(BYTES.transpose(0, 3, 1, 2)),
    "one image, without a batch": sees(BYTES[0]),
    "a grey image": sees(BYTES[..., :1]),
    "an image with transparency": sees(BYTES.repeat(2, -1)[..., :4]),
    "a grey image for statistics of one number": lambda _: vgg_jax.features(
        small().replace(preprocessing=PREPROCESSING["unit"]), BYTES[..., :1], ["pool2"]
    ),
    "channels first for statistics of one number": lambda _: vgg_jax.features(
        small().replace(preprocessing=PREPROCESSING["unit"]),
        BYTES.transpose(0, 3, 1, 2),
        ["pool2"],
    ),
    "images of another size than the head's": lambda _: small(
        head="paper", hidden=(6,)
    )(BYTES[:, :16, :16]),
    "a path for images": sees("dog.png"),
    "images of two sizes": sees([UNIT[0], UNIT[0, :16]], value_range=(0, 1)),
    "a path for a network": lambda _: vgg_jax.features("vgg.safetensors", BYTES),
    "an image that vanishes before the layer": sees(BYTES[:, :3, :3]),
    "a layer that is unknown": sees(BYTES, ["relu3_3"]),
    "a layer in another program's numbers": sees(BYTES, ["features.29"]),
    "a layer that is not in a tuple": sees(BYTES, "relu1_1"),
    "a layer that is a number": sees(BYTES, 5),
    "a layer in a list in a list": sees(BYTES, [["pool2"]]),
    "a layer of content that is not in a tuple": lambda _: perceptual_loss(
        small(), UNIT, UNIT, value_range=(0, 1), content="relu2_1"
    ),
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
    "the total variation of uint8": lambda _: total_variation(jnp.asarray(BYTES)),
    "the total variation of an image without a batch": lambda _: total_variation(
        jnp.asarray(UNIT[0])
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
    "LPIPS with the path of its heads": lambda _: vgg_jax.lpips(
        trunk(), UNIT, UNIT, value_range=(0, 1), heads="vgg.pth"
    ),
    "LPIPS with one head": lambda _: vgg_jax.lpips(
        trunk(), UNIT, UNIT, value_range=(0, 1), heads=(np.ones(64),)
    ),
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
    "precision and recall with no neighbour": lambda _: precision_recall(
        np.ones((9, 8)), np.ones((9, 8)), neighbours=0
    ),
    "precision and recall of NaN": lambda _: precision_recall(
        np.full((9, 8), np.nan), np.ones((9, 8))
    ),
    "a linear probe of strength 0": lambda _: _probes(strengths=(0,)),
    "a linear probe of one strength": lambda _: _probes(strengths=1.0),
    "a linear probe of labels in floating point": lambda _: _probes(1.0),
    "a linear probe of no test images": lambda _: _probes(tested=0),
    "precision and recall of two networks' features": lambda _: precision_recall(
        np.zeros((9, 8)), np.zeros((9, 4))
    ),
}
