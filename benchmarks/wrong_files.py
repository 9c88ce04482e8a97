"""Files of weights with something wrong, and what loads or saves them."""

import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

import vgg_jax
from vgg_jax.errors import RunError
from vgg_jax.nn.preprocessing import PREPROCESSING

ROOT = Path(__file__).resolve().parents[1]
IMAGE = np.zeros((1, 32, 32, 3), np.uint8)
TABLE = "conv3-4 | conv3-8 conv3-8 |"
FILE = "vgg.safetensors"
EDGE = 2**40  # bytes: more than a file here has

Use = Callable[[Path], Any]
Tensors = dict[str, np.ndarray]


def example(
    variant: str = TABLE, classes: int = 1000, **fields: Any
) -> vgg_jax.Network:
    """Returns a small network, made without compiling anything."""
    fields = {"head": "adaptive", "hidden": (6, 5)} | fields
    model = vgg_jax.VGG(variant, classes, **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(IMAGE.shape))
    shapes.pop("intermediates", None)
    variables = jax.tree.map(lambda s: np.full(s.shape, 0.1, "f4"), shapes)
    return vgg_jax.Network(variables, model, PREPROCESSING["imagenet"])


def tensors(**fields: Any) -> Tensors:
    """Returns the tensors of a file of torchvision's names."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FILE
        vgg_jax.save(example(**fields), path, convention="torchvision")
        return load_file(path)


def loads(edit: Callable[[Tensors], Any], **arguments: Any) -> Use:
    """Returns a use that loads a file in torchvision's names with something changed."""

    def use(scratch: Path) -> Any:
        changed = tensors()
        save_file(edit(changed) or changed, scratch / FILE)
        return vgg_jax.load(scratch / FILE, **arguments)

    return use


def loads_bytes(name: str, content: Callable[[], bytes]) -> Use:
    """Returns a use that loads a file with this content."""

    def use(scratch: Path) -> Any:
        (scratch / name).write_bytes(content())
        return vgg_jax.load(scratch / name)

    return use


def loads_own(edit: Callable[[Tensors, dict], Any], **arguments: Any) -> Use:
    """Returns a use that loads what `save` wrote, its tensors or metadata changed."""

    def use(scratch: Path) -> Any:
        path = scratch / FILE
        vgg_jax.save(example(), path)
        changed, header = load_file(path), _header(path)["__metadata__"]
        said = json.loads(header["vgg_jax"])
        edit(changed, said)
        save_file(changed, path, metadata={"vgg_jax": json.dumps(said)})
        return vgg_jax.load(path, **arguments)

    return use


def loads_torch(content: Callable[[Any, Tensors], Any], **options: Any) -> Use:
    """Returns a use that loads what `torch.save` wrote."""

    def use(scratch: Path) -> Any:
        import torch

        torch.save(content(torch, tensors()), scratch / "vgg.pth", **options)
        return vgg_jax.load(scratch / "vgg.pth")

    return use


def loads_h5(write: Callable[[Any, Any], Any]) -> Use:
    """Returns a use that loads a file of HDF5: Keras' layout with one layer."""

    def use(scratch: Path) -> Any:
        import h5py

        with h5py.File(scratch / "vgg.weights.h5", "w") as file:
            group = file.create_group("layers/conv2d/vars")
            group.attrs["name"] = "block1_conv1"
            write(group, h5py)
        return vgg_jax.load(scratch / "vgg.weights.h5")

    return use


def without(library: str, use: Use) -> Use:
    """Returns a use where a library is not installed."""

    def patched(scratch: Path) -> Any:
        with mock.patch.dict(sys.modules, {library: None}):
            return use(scratch)

    return patched


def saves(value: Callable[[], vgg_jax.Network], name: str = FILE, **said: Any) -> Use:
    """Returns a use that saves a network."""
    return lambda scratch: vgg_jax.save(value(), scratch / name, **said)


def _header(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def whole() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        vgg_jax.save(example(), Path(scratch) / FILE)
        return (Path(scratch) / FILE).read_bytes()


def declares_more() -> bytes:
    entry = {"dtype": "F32", "shape": [EDGE // 4], "data_offsets": [0, EDGE]}
    header = json.dumps({"features.0.weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


class Code:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        import os

        return os.system, ("echo this must not be run > /tmp/ran",)


def archive(method: int, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        packed.writestr("archive/data.pkl", content)
        packed.writestr("archive/version", b"3\n")
    return file.getvalue()


def resnet(_: Tensors) -> Tensors:
    ones = np.ones((4, 3, 7, 7), np.float32)
    return {"conv1.weight": ones, "bn1.weight": ones[0, 0, 0], "fc.bias": ones[0, 0, 0]}


def alexnet(_: Tensors) -> Tensors:
    kernel = lambda *shape: np.ones(shape, np.float32)
    widths = {0: (4, 3, 11, 11), 3: (8, 4, 5, 5), 6: (8, 8, 3, 3)}
    named = {f"features.{i}.weight": kernel(*shape) for i, shape in widths.items()}
    named |= {f"features.{i}.bias": kernel(shape[0]) for i, shape in widths.items()}
    for i, shape in {1: (6, 288), 4: (6, 6), 6: (1000, 6)}.items():
        named |= {f"classifier.{i}.weight": kernel(*shape)}
        named |= {f"classifier.{i}.bias": kernel(shape[0])}
    return named


def features(all_of_them: Tensors) -> Tensors:
    return {k: v for k, v in all_of_them.items() if k.startswith("features")}


def asks_for_logits(scratch: Path) -> Any:
    save_file(features(tensors()), scratch / FILE)
    return vgg_jax.load(scratch / FILE, preprocessing="imagenet")(IMAGE)


def nothing_trained(scratch: Path) -> Any:
    import configs.default

    fields = configs.default.get_config()
    (scratch / "config.json").write_text(fields.to_json())
    return vgg_jax.load(scratch)


def old_run(scratch: Path) -> Path:
    import tarfile

    packed = ROOT / "tests" / "runs" / "workdirs" / "plain-0.1.0.tar.gz"
    with tarfile.open(packed) as tar:
        tar.extractall(scratch, filter="data")
    return scratch / "plain"


def torn_run(scratch: Path) -> Any:
    run = old_run(scratch)
    for part in (run / "checkpoints").glob("*/state/d/*"):
        part.write_bytes(part.read_bytes()[:100])
    return vgg_jax.load(run)


def without_orbax(scratch: Path) -> None:
    """In a process of its own, as this one has imported it."""
    code = "import sys, vgg_jax; sys.modules['orbax'] = None; vgg_jax.load(sys.argv[1])"
    command = [sys.executable, "-c", code, str(old_run(scratch))]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    *_, last = finished.stderr.strip().splitlines() or [""]
    name, _, said = last.partition(": ")
    if name.endswith("RunError"):
        raise RunError(said)


def hub_snapshot(scratch: Path) -> Any:
    """Loads a directory as the hub's client makes it."""
    (scratch / "config.json").write_text('{"architecture": "vgg16"}')
    vgg_jax.save(example(), scratch / "model.safetensors")
    return vgg_jax.load(scratch)


def float8() -> bytes:
    entry = {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}
    header = json.dumps({"features.0.weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def changed(edit: Callable[[dict[str, Any]], Any]) -> vgg_jax.Network:
    """Returns the example with other parameters."""
    network = example()
    edit(network.variables["params"])
    return network


def replaces_the_head_of_a_body(scratch: Path) -> Any:
    vgg_jax.save(
        changed(lambda params: [params.pop(f"fc{i}") for i in (6, 7, 8)]),
        scratch / FILE,
    )
    return vgg_jax.load(scratch / FILE, num_classes=3)


def declares_gigabytes(scratch: Path) -> Any:
    """The scales of batch norm are ones that the network has not, of any number."""
    network = example("conv3-4 |", head="compact", batch_norm=True, norm_scale=False)
    vgg_jax.save(network, scratch / FILE, convention="torchvision")
    stored, header = load_file(scratch / FILE), _header(scratch / FILE)
    said = json.loads(header["__metadata__"]["vgg_jax"])
    said["model"]["width"] = 2.5e7
    save_file(stored, scratch / FILE, metadata={"vgg_jax": json.dumps(said)})
    return vgg_jax.load(scratch / FILE)


def overwrites(scratch: Path) -> Any:
    vgg_jax.save(example(), scratch / FILE)
    return vgg_jax.save(example(), scratch / FILE)


def put(name: str, value: Any) -> Callable[[Tensors], None]:
    return lambda changed: changed.update({name: value})
