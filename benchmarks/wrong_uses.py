"""What wrong uses of the package get: each is tried, and what it says is the table.

    KERAS_BACKEND=jax benchmarks/envs/parity/bin/python -m benchmarks.wrong_uses \\
        > results/wrong_uses.md

A use is a function that is given an empty directory. It must raise an error that a user
can mend, of one line.
"""

import io
import json
import pickle
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
from vgg_jax.errors import RunError, UserError
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
    params = jax.tree.map(lambda s: np.full(s.shape, 0.1, "f4"), shapes["params"])
    return vgg_jax.Network({"params": params}, model, PREPROCESSING["imagenet"])


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


def _whole() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        vgg_jax.save(example(), Path(scratch) / FILE)
        return (Path(scratch) / FILE).read_bytes()


def _declares_more() -> bytes:
    entry = {"dtype": "F32", "shape": [EDGE // 4], "data_offsets": [0, EDGE]}
    header = json.dumps({"features.0.weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


class _Code:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        import os

        return os.system, ("echo this must not be run > /tmp/ran",)


def _zip(method: int, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")
    return file.getvalue()


def _resnet(_: Tensors) -> Tensors:
    ones = np.ones((4, 3, 7, 7), np.float32)
    return {"conv1.weight": ones, "bn1.weight": ones[0, 0, 0], "fc.bias": ones[0, 0, 0]}


def _alexnet(_: Tensors) -> Tensors:
    kernel = lambda *shape: np.ones(shape, np.float32)
    widths = {0: (4, 3, 11, 11), 3: (8, 4, 5, 5), 6: (8, 8, 3, 3)}
    named = {f"features.{i}.weight": kernel(*shape) for i, shape in widths.items()}
    named |= {f"features.{i}.bias": kernel(shape[0]) for i, shape in widths.items()}
    for i, shape in {1: (6, 288), 4: (6, 6), 6: (1000, 6)}.items():
        named |= {f"classifier.{i}.weight": kernel(*shape)}
        named |= {f"classifier.{i}.bias": kernel(shape[0])}
    return named


def _features(all_of_them: Tensors) -> Tensors:
    return {k: v for k, v in all_of_them.items() if k.startswith("features")}


def _asks_for_logits(scratch: Path) -> Any:
    save_file(_features(tensors()), scratch / FILE)
    return vgg_jax.load(scratch / FILE, preprocessing="imagenet")(IMAGE)


def _nothing_trained(scratch: Path) -> Any:
    import configs.default

    fields = configs.default.get_config()
    (scratch / "config.json").write_text(fields.to_json())
    return vgg_jax.load(scratch)


def _old_run(scratch: Path) -> Path:
    import tarfile

    archive = ROOT / "tests" / "runs" / "workdirs" / "plain-0.1.0.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    return scratch / "plain"


def _torn_run(scratch: Path) -> Any:
    run = _old_run(scratch)
    for part in (run / "checkpoints").glob("*/state/d/*"):
        part.write_bytes(part.read_bytes()[:100])
    return vgg_jax.load(run)


def _without_orbax(scratch: Path) -> None:
    """In a process of its own, as this one has imported it."""
    code = "import sys, vgg_jax; sys.modules['orbax'] = None; vgg_jax.load(sys.argv[1])"
    command = [sys.executable, "-c", code, str(_old_run(scratch))]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    *_, last = finished.stderr.strip().splitlines() or [""]
    name, _, said = last.partition(": ")
    if name.endswith("RunError"):
        raise RunError(said)


def _overwrites(scratch: Path) -> Any:
    vgg_jax.save(example(), scratch / FILE)
    return vgg_jax.save(example(), scratch / FILE)


def _set(name: str, value: Any) -> Callable[[Tensors], None]:
    return lambda changed: changed.update({name: value})


_LAST = "classifier.6.weight"
_BOMB = np.zeros(10**7, np.float32)
# What is wrong -> the use. Files of weights, in and out.
WEIGHTS: dict[str, Use] = {
    "a file that is not there": lambda scratch: vgg_jax.load(scratch / "vgg16.pth"),
    "an empty file": loads_bytes(FILE, bytes),
    "a truncated file": loads_bytes(FILE, lambda: _whole()[:-100]),
    "a text file": loads_bytes(FILE, lambda: b"<html>404 not found</html>"),
    "a header that declares a terabyte": loads_bytes(FILE, _declares_more),
    "a header that is a terabyte long": loads_bytes(
        FILE, lambda: struct.pack("<Q", EDGE) + bytes(64)
    ),
    "a kind of file that is unknown": loads_bytes("vgg.npz", lambda: b"PK"),
    "a whole model of Keras 3": loads_bytes("vgg.keras", lambda: b"PK"),
    "a directory that is no run": lambda scratch: vgg_jax.load(scratch),
    "a file that is not what its name says": loads_bytes(
        "vgg16-397923af.safetensors", _whole
    ),
    "a ResNet": loads(_resnet),
    "an AlexNet": loads(_alexnet),
    "one tensor too many": loads(_set("aux.weight", np.ones(3, np.float32))),
    "one tensor missing": loads(lambda t: t.pop("features.3.bias") is None),
    "one tensor misnamed": loads(
        lambda t: t.update({"features.3.bais": t.pop("features.3.bias")})
    ),
    "a head of another width": loads(_set(_LAST, np.ones((1000, 7), np.float32))),
    "a kernel of 2x2 pixels": loads(
        _set("features.0.weight", np.ones((4, 3, 2, 2), np.float32))
    ),
    "a NaN among the weights": loads(
        lambda t: t["features.3.weight"].__setitem__((0, 0, 0, 0), np.nan)
    ),
    "weights in int8": loads(
        lambda t: {name: x.astype(np.int8) for name, x in t.items()}
    ),
    "batch norm after one convolution only": loads(
        lambda t: {f"features.4.{k}": np.ones(8, np.float32) for k in ("weight",)} | t
    ),
    "E's name for another network": loads(lambda t: None, variant="E"),
    "a configuration that is unknown": loads(lambda t: None, variant="F"),
    "no preprocessing for weights that do not say": loads(_features),
    "a preprocessing that is unknown": loads(lambda t: None, preprocessing="caffe"),
    "no classes": loads(lambda t: None, num_classes=0),
    "grey images' weights with colour statistics": loads(
        lambda t: t.update({"features.0.weight": t["features.0.weight"][:, :1].copy()})
    ),
    "logits of weights without a head": _asks_for_logits,
    "checkpoint= for a file": loads(lambda t: None, checkpoint="best"),
    "other preprocessing than was saved": loads_own(
        lambda t, said: None, preprocessing="keras"
    ),
    "a saved file whose tensors were changed": loads_own(
        lambda t, said: t["conv1_1/bias"].__setitem__(0, 1)
    ),
    "a saved file of a later version": loads_own(
        lambda t, said: said["model"].update(attention=True)
    ),
    "a saved file with 2 names for 1,000 classes": loads_own(
        lambda t, said: said.update(class_names=["cat", "dog"])
    ),
    "a pickle with code, as .pth": loads_bytes(
        "vgg.pth", lambda: pickle.dumps(_Code())
    ),
    "an archive with code, as .pth": loads_bytes(
        "vgg.pth", lambda: _zip(zipfile.ZIP_STORED, pickle.dumps(_Code(), 2))
    ),
    "a zip bomb, as .pth": loads_bytes(
        "vgg.pth", lambda: _zip(zipfile.ZIP_DEFLATED, bytes(10**7))
    ),
    "a whole module, as .pth": loads_torch(lambda torch, t: torch.nn.Linear(2, 2)),
    "a training checkpoint, as .pth": loads_torch(
        lambda torch, t: {"state_dict": {"a": torch.ones(2)}, "epoch": 7}
    ),
    "a terabyte of one number, as .pth": loads_torch(
        lambda torch, t: {"features.0.weight": torch.ones(1).expand(EDGE // 4)}
    ),
    ".pth without PyTorch": without(
        "torch", loads_bytes("vgg.pth", lambda: pickle.dumps({}))
    ),
    ".h5 without h5py": without("h5py", loads_bytes("vgg.h5", lambda: b"\x89HDF")),
    "a damaged .h5": loads_bytes("vgg.h5", lambda: b"\x89HDF\r\n\x1a\n" + bytes(99)),
    "a link to another file, in .h5": loads_h5(
        lambda group, h5py: group.update({"0": h5py.ExternalLink("/etc/passwd", "/")})
    ),
    "a compressed bomb, in .h5": loads_h5(
        lambda group, h5py: group.create_dataset("0", data=_BOMB, compression=9)
    ),
    "a data set without its numbers, in .h5": loads_h5(
        lambda group, h5py: group.create_dataset("0", (EDGE,), "f4")
    ),
    "the hub without its library": without(
        "huggingface_hub", lambda _: vgg_jax.load("hf://timm/vgg16.tv_in1k")
    ),
    "half a name on the hub": lambda _: vgg_jax.load("hf://vgg16"),
    "a run without a checkpoint": _nothing_trained,
    "a run whose checkpoints are torn": _torn_run,
    "checkpoint=newest of a run": lambda scratch: vgg_jax.load(
        _old_run(scratch), checkpoint="newest"
    ),
    "a run without Orbax": _without_orbax,
    "saving over a file": _overwrites,
    "saving as something else": saves(example, "vgg.pth"),
    "saving in a convention that is not written": saves(example, convention="keras"),
    "saving LRN for torchvision": saves(
        lambda: example("conv3-4 LRN | conv3-8 |"), convention="torchvision"
    ),
    "saving average pooling for torchvision": saves(
        lambda: example(pool="average"), convention="torchvision"
    ),
    "saving a head for 32-pixel images for torchvision": saves(
        lambda: example(head="paper"),
        convention="torchvision",
    ),
    "saving a compact head for timm": saves(
        lambda: example(head="compact", hidden=(4096, 4096)), convention="timm"
    ),
}
TABLES = {"Weights in and out": WEIGHTS}


def told(use: Use) -> str:
    """Returns the one line that a use gets.

    Raises:
        AssertionError: it gets none, or more than one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            use(Path(scratch))
        except UserError as error:
            text = str(error).replace(f"{scratch}/", "").replace(scratch, "scratch")
            assert text and "\n" not in text, text
            return text
    raise AssertionError("nothing was refused")


def main() -> None:
    """Prints the tables."""
    jax.config.update("jax_platforms", "cpu")
    for title, uses in TABLES.items():
        print(f"## {title}\n\n| what | what it gets |\n|---|---|")
        for what, use in uses.items():
            line = told(use).replace("|", "\\|").replace("<", "&lt;")
            print(f"| {what} | {line} |", flush=True)
        print()


if __name__ == "__main__":
    main()
