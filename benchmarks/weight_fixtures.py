"""Makes the small files of weights that the tests read, with the programs they are of.

    KERAS_BACKEND=jax benchmarks/envs/parity/bin/python -m benchmarks.weight_fixtures

Each is a network of torchvision, timm or Keras 3 in the convention of its program, with
an image and the activations that the program computed of it. They are kept: what could
be read once must be readable for ever.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import safetensors.torch
import timm.layers
import timm.models.vgg
import torch
import torchvision
from torch import nn

HERE = Path(__file__).resolve().parents[1] / "tests" / "interop" / "peers"
CONFIGURATION: list[Any] = [4, "M", 8, 8, "M"]
CLASSES = 5
KEPT = (nn.ReLU, nn.MaxPool2d, nn.Linear)  # modules whose outputs are kept


def randomise(module: nn.Module) -> None:
    """Gives every weight and statistic a value that is not trivial."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.uniform_(-0.5, 0.5)
            elif tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(0, (2 / fan_in) ** 0.5)


def torch_activations(module: nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns outputs by module, channels last."""
    seen, kept = torch.from_numpy(images).permute(0, 3, 1, 2) / 255, {}

    def hook(name: str) -> Callable[..., None]:
        def keep(_, __, out):
            x = out.detach().clone().numpy()
            x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
            kept[name] = x.reshape(len(x), -1) if x.shape[1:3] == (1, 1) else x

        return keep

    for name, child in module.named_modules():
        if isinstance(child, KEPT):
            child.register_forward_hook(hook(name))
    normalized = torchvision.transforms.functional.normalize(
        seen, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    module.eval()(normalized)
    return kept


def torchvision_vgg(batch_norm: bool) -> nn.Module:
    """Returns a VGG of torchvision with few channels."""
    features = torchvision.models.vgg.make_layers(CONFIGURATION, batch_norm)
    module = torchvision.models.vgg.VGG(features, init_weights=False)
    module.classifier = nn.Sequential(
        *(nn.Linear(49 * 8, 12), nn.ReLU(True), nn.Dropout()),
        *(nn.Linear(12, 6), nn.ReLU(True), nn.Dropout()),
        nn.Linear(6, CLASSES),
    )
    return module


def make_torch(images: np.ndarray) -> None:
    """Writes those of torchvision and timm, and the `.pth` of one in both formats."""
    small = timm.models.vgg.VGG(CONFIGURATION, CLASSES, norm_layer=nn.BatchNorm2d)
    small.pre_logits = timm.models.vgg.ConvMlp(8, 6, 7, mlp_ratio=2.0)
    small.head = timm.layers.ClassifierHead(6, CLASSES)
    made = {
        "torchvision": torchvision_vgg(False),
        "torchvision_bn": torchvision_vgg(True),
        "timm_bn_float16": small,
    }
    for name, module in made.items():
        randomise(module)
        if name.endswith("float16"):
            module.half().float()  # to what the file will hold
        expected = torch_activations(module, images)
        np.savez_compressed(HERE / f"{name}.npz", images=images, **expected)
        state = module.half() if name.endswith("float16") else module
        path = HERE / f"{name}.safetensors"
        safetensors.torch.save_file(state.state_dict(), path)
    state = made["torchvision_bn"].state_dict()
    torch.save(state, HERE / "torchvision_bn.pth")
    torch.save(
        state, HERE / "torchvision_bn-old.pth", _use_new_zipfile_serialization=False
    )


def keras_vgg() -> keras.Model:
    """Returns a network with the names of `keras.applications.VGG16`."""
    layers, seen = keras.layers, keras.Input((28, 24, 3))
    x = seen
    for stage, widths in enumerate(([4], [8, 8]), 1):
        for i, width in enumerate(widths, 1):
            name = f"block{stage}_conv{i}"
            x = layers.Conv2D(width, 3, activation="relu", padding="same", name=name)(x)
        x = layers.MaxPooling2D(2, name=f"block{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(12, activation="relu", name="fc1")(x)
    x = layers.Dense(6, activation="relu", name="fc2")(x)
    return keras.Model(seen, layers.Dense(CLASSES, name="predictions")(x))


def make_keras(images: np.ndarray) -> None:
    """Writes one of Keras in its three formats."""
    model, rng = keras_vgg(), np.random.default_rng(0)
    shapes = [w.shape for w in model.get_weights()]
    model.set_weights(
        [rng.normal(0, (2 / np.prod(s[:-1])) ** 0.5, s).astype("f4") for s in shapes]
    )
    names = [layer.name for layer in model.layers if layer.name not in ("flatten",)][1:]
    outputs = keras.Model(model.input, [model.get_layer(n).output for n in names])
    seen = keras.applications.vgg16.preprocess_input(images.astype("f4"))
    kept = dict(zip(names, map(np.asarray, outputs(seen)), strict=True))
    np.savez_compressed(HERE / "keras.npz", images=images, **kept)
    model.save_weights(HERE / "keras.weights.h5")
    model.save(HERE / "keras_whole.h5")
    with h5py.File(HERE / "keras_published.h5", "w") as file:
        layers = [layer.name for layer in model.layers]
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer in model.layers:  # the names of the files on Keras' releases page
            group, weights = file.create_group(layer.name), layer.get_weights()
            kinds = "Wb"[: len(weights)]
            names = [f"{layer.name}_{kind}_1:0" for kind in kinds]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, weights, strict=True):
                group[name] = value


def main() -> None:
    """Writes all of them anew, and by which versions they were made."""
    warnings.simplefilter("ignore")
    HERE.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 28, 24, 3), dtype=np.uint8)
    make_torch(images)
    make_keras(images)
    modules = (torch, torchvision, timm, keras, h5py, safetensors)
    versions = {module.__name__: module.__version__ for module in modules}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
