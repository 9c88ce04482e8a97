"""VGG (Simonyan & Zisserman, 2014) in JAX: the networks, their training, their speed.

The names below are the public ones; everything else is reached through its module.
They load when they are first used, so importing the package is instant and changes no
global state.

>>> import jax, vgg_jax
>>> vgg_jax.configure()  # before the first array: fast convolutions, compilation cache
>>> model = vgg_jax.VGG("conv3-8 | conv3-16 |", num_classes=10, head="compact")
>>> images = jax.numpy.zeros((2, 32, 32, 3))
>>> variables = jax.jit(model.init)(jax.random.key(0), images)
>>> jax.jit(model.apply)(variables, images).shape
(2, 10)

Weights and all that belongs to them are one value, a `Network`. `load` reads it from a
file of torchvision, timm or Keras, from a run's workdir or from a file that `save`
wrote; `features` and `lpips` look through it:

>>> import tempfile
>>> from vgg_jax.interop.network import random
>>> network = random(model, "imagenet")
>>> isinstance(network, vgg_jax.Network)
True
>>> with tempfile.TemporaryDirectory() as scratch:
...     vgg_jax.save(network, f"{scratch}/vgg.safetensors")
...     network = vgg_jax.load(f"{scratch}/vgg.safetensors")
>>> found = vgg_jax.features(network, images, ["relu2_1"], value_range=(0, 1))
>>> found["relu2_1"].shape
(2, 16, 16, 16)

>>> sorted(vgg_jax.CONFIGURATIONS)
['A', 'A-LRN', 'B', 'C', 'D', 'E']
>>> specs = vgg_jax.layers("E")  # a tuple of LayerSpec
>>> isinstance(specs[0], vgg_jax.LayerSpec), sum(spec.has_kernel for spec in specs)
(True, 19)
>>> vgg_jax.total(vgg_jax.costs(vgg_jax.layers("D"))).params
138357544

`vgg_jax.train(config, workdir)` trains, `vgg_jax.score(workdir)` evaluates a run's
weights again, and `vgg_jax.evaluate` scores any network on a split, exactly:

>>> import numpy as np
>>> from vgg_jax.data.datasets import Split
>>> from vgg_jax.evaluation.metrics import Sums, cross_entropy
>>> @jax.jit
... def eval_step(variables, batch):
...     logits = model.apply(variables, batch.images.astype(np.float32) / 255)
...     losses = cross_entropy(logits, batch.labels)
...     return Sums.of(losses, logits, batch.labels), logits
>>> split = Split(np.zeros((5, 32, 32, 3), np.uint8), np.arange(5, dtype=np.int32))
>>> evaluation = vgg_jax.evaluate(eval_step, variables, split, batch_size=2)
>>> evaluation.count, evaluation.logits.shape
(5, (5, 10))

A mistake of the caller is a `ConfigError`, which is a `ValueError` too; anything else
that the caller can mend is a `RunError`:

>>> vgg_jax.VGG(pool="mean")
Traceback (most recent call last):
vgg_jax.errors.ConfigError: pool='mean' is unknown; choose one of: max, average
>>> vgg_jax.score("runs/nothing")
Traceback (most recent call last):
vgg_jax.errors.RunError: runs/nothing holds no run (no config.json): name the workdir \
of a run
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgg_jax.backend import configure as configure
    from vgg_jax.errors import ConfigError as ConfigError
    from vgg_jax.errors import RunError as RunError
    from vgg_jax.evaluation.exact import evaluate as evaluate
    from vgg_jax.inference.features import features as features
    from vgg_jax.inference.lpips import lpips as lpips
    from vgg_jax.interop.load import load as load
    from vgg_jax.interop.network import Network as Network
    from vgg_jax.interop.save import save as save
    from vgg_jax.nn.architecture import CONFIGURATIONS as CONFIGURATIONS
    from vgg_jax.nn.architecture import LayerSpec as LayerSpec
    from vgg_jax.nn.architecture import layers as layers
    from vgg_jax.nn.cost import costs as costs
    from vgg_jax.nn.cost import total as total
    from vgg_jax.nn.vgg import VGG as VGG
    from vgg_jax.training.loop import train as train
    from vgg_jax.training.score import score as score

__version__ = "0.2.0"
__all__ = [
    "CONFIGURATIONS",
    "VGG",
    "ConfigError",
    "LayerSpec",
    "Network",
    "RunError",
    "configure",
    "costs",
    "evaluate",
    "features",
    "layers",
    "load",
    "lpips",
    "save",
    "score",
    "total",
    "train",
]
_MODULES = {
    "CONFIGURATIONS": "nn.architecture",
    "VGG": "nn.vgg",
    "ConfigError": "errors",
    "LayerSpec": "nn.architecture",
    "Network": "interop.network",
    "RunError": "errors",
    "configure": "backend",
    "costs": "nn.cost",
    "evaluate": "evaluation.exact",
    "features": "inference.features",
    "layers": "nn.architecture",
    "load": "interop.load",
    "lpips": "inference.lpips",
    "save": "interop.save",
    "score": "training.score",
    "total": "nn.cost",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vgg_jax' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"vgg_jax.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"vgg_jax.{name} needs {error.name}, which is not installed here: "
            "pip install 'vgg_jax[train]'"
        ) from error
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
