"""Every activation beside the real torchvision, timm and Keras, and strict round trips.

    KERAS_BACKEND=jax benchmarks/envs/parity/bin/python -m benchmarks.parity \\
        > results/parity/networks.txt

With the names of some of the three programs, only those are compared.

Networks as those programs build them, with random weights (batch norm's statistics
too), a batch of 4 random images, float32. The file goes through `vgg_jax.load`, and
back through `vgg_jax.save` into a new module of the program by
`load_state_dict(strict=True)`. An error is that of the worst activation: the norm of
the difference over the norm, and the largest difference over the largest value.
"""

import gc
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vgg_jax
from vgg_jax.interop import layer_names

SIZES = ((224, 224), (200, 168))
CONVOLUTIONS = ("lax", "auto")
LIMIT = 1e-5
TORCHVISION = [f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")]
TIMM = ("vgg16", "vgg16_bn", "vgg19")
KERAS = ("VGG16", "VGG19")

Activations = dict[str, np.ndarray]


class Peer(NamedTuple):
    """A network of another program.

    Attributes:
        name: of the program and the network.
        convention: of its names.
        path: of the file of its weights.
        activations: its own, by name, channels last, of uint8 images.
        back: loads a file strictly; returns whether every bit is the same.
    """

    name: str
    convention: str
    path: Path
    activations: Callable[[np.ndarray], Activations]
    back: Callable[[Path], bool] | None = None


def _torch_activations(module: Any, images: np.ndarray) -> Activations:
    torch = importlib.import_module("torch")
    kept: Activations = {}

    def hook(name):
        def keep(_, __, out):
            x = out.numpy()
            x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
            kept[name] = x.reshape(len(x), -1) if x.shape[1:3] == (1, 1) else x

        return keep

    handles = [m.register_forward_hook(hook(n)) for n, m in module.named_modules()]
    seen = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    with torch.inference_mode():
        module((seen - mean) / std)
    for handle in handles:
        handle.remove()
    return kept


def _torch_peer(
    convention: str, name: str, build: Callable[[], Any], scratch: Path
) -> Peer:
    nn = importlib.import_module("torch.nn")
    safetensors = importlib.import_module("safetensors.torch")
    module, path = build().eval(), scratch / f"{convention}_{name}.safetensors"
    importlib.import_module("benchmarks.weight_fixtures").randomise(module)
    for child in module.modules():
        if isinstance(child, nn.ReLU):
            child.inplace = False  # what a hook has seen would change
    safetensors.save_file(module.state_dict(), path)

    def back(saved: Path) -> bool:
        fresh, want = build(), module.state_dict()
        fresh.load_state_dict(safetensors.load_file(saved), strict=True)
        return all(
            bool((x == want[key]).all()) for key, x in fresh.state_dict().items()
        )

    activations = lambda images: _torch_activations(module, images)
    return Peer(f"{convention} {name}", convention, path, activations, back)


def _keras_peer(name: str, size: tuple[int, int], scratch: Path) -> Peer:
    keras = importlib.import_module("keras")
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(*size, 3), classifier_activation=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if values := layer.get_weights():
            kernel, bias = (np.empty(v.shape, "f4") for v in values)
            fan_in = kernel.size // kernel.shape[-1]
            kernel[...] = rng.standard_normal(kernel.shape, "f4") * (2 / fan_in) ** 0.5
            bias[...] = rng.uniform(-0.5, 0.5, bias.shape)
            layer.set_weights([kernel, bias])
    path = scratch / "keras.weights.h5"
    model.save_weights(path)
    names = [layer.name for layer in model.layers[1:] if layer.name != "flatten"]
    outputs = keras.Model(model.input, [model.get_layer(n).output for n in names])

    def activations(images: np.ndarray) -> Activations:
        seen = keras.applications.vgg16.preprocess_input(images.astype("f4"))
        return dict(zip(names, map(np.asarray, outputs(seen)), strict=True))

    return Peer(f"keras {name}", "keras", path, activations)


def _peers(
    scratch: Path, programs: Collection[str]
) -> Iterator[tuple[Peer, tuple[tuple[int, int], ...]]]:
    """Yields networks, one at a time, and the sizes of images that each takes."""
    models = importlib.import_module("torchvision").models
    for name in TORCHVISION if "torchvision" in programs else ():
        build = lambda name=name: getattr(models, name)(
            weights=None, init_weights=False
        )
        yield _torch_peer("torchvision", name, build, scratch), SIZES
    timm = importlib.import_module("timm")
    for name in TIMM if "timm" in programs else ():
        build = lambda name=name: timm.create_model(name, pretrained=False)
        yield _torch_peer("timm", name, build, scratch), SIZES
    for name in KERAS if "keras" in programs else ():
        for size in SIZES:  # its fc1 is for one size of images
            yield _keras_peer(name, size, scratch), (size,)


def _errors(found: Any, want: np.ndarray) -> tuple[float, float]:
    found = np.asarray(found)
    assert found.shape == want.shape, (found.shape, want.shape)
    difference = found - want
    return (
        float(np.linalg.norm(difference) / np.linalg.norm(want)),
        float(np.abs(difference).max() / np.abs(want).max()),
    )


def _row(peer: Peer, network: vgg_jax.Network, size: tuple[int, int]) -> bool:
    """Prints the errors at one size; returns whether all are within the limit."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, *size, 3), dtype=np.uint8)
    want, good = peer.activations(images), True
    rows = layer_names.table(network.model)
    names = [getattr(row, peer.convention) for row in rows]
    names = [name for name in names if name and name in want]
    for conv in CONVOLUTIONS:
        began = time.monotonic()
        found = network.configured(conv=conv).activations(images, tuple(names))
        errors = np.asarray([_errors(found[name], want[name]) for name in names])
        worst = names[int(errors[:, 0].argmax())]
        norm, largest = errors.max(0)
        print(
            f"{peer.name:22} {size[0]}x{size[1]}  {conv:5} {len(names):3} activations  "
            f"norm {norm:.1e} ({worst})  largest {largest:.1e}  "
            f"logits {errors[-1, 0]:.1e}  {time.monotonic() - began:.0f} s",
            flush=True,
        )
        good &= bool(norm < LIMIT and largest < LIMIT)
    return good


def _check(peer: Peer, sizes: tuple[tuple[int, int], ...], scratch: Path) -> bool:
    network = vgg_jax.load(peer.path)
    os.remove(peer.path)
    good = True
    if peer.back:
        saved = scratch / "back.safetensors"
        vgg_jax.save(network, saved, convention=peer.convention)
        same = peer.back(saved)
        os.remove(saved)
        good &= same
        print(f"{peer.name:22} loads back strictly, every bit the same: {same}")
    return all([_row(peer, network, size) for size in sizes]) and good


def main() -> None:
    """Prints the table; fails if an error exceeds the limit."""
    names = ("torch", "torchvision", "timm", "keras", "jax", "numpy")
    versions = [f"{n} {importlib.import_module(n).__version__}" for n in names]
    print(f"{', '.join(versions)}; float32, batch of 4\n", flush=True)
    good, count, programs = True, 0, sys.argv[1:] or ("torchvision", "timm", "keras")
    with tempfile.TemporaryDirectory() as directory:
        for peer, sizes in _peers(Path(directory), programs):
            good &= _check(peer, sizes, Path(directory))
            count += 1
            del peer
            jax.clear_caches()
            gc.collect()
    print(f"\n{count} networks; every error below {LIMIT:g}: {good}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
