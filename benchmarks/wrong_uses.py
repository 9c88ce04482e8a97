"""What wrong uses of the package get: each is tried, and what it says is the table.

    KERAS_BACKEND=jax benchmarks/envs/parity/bin/python -m benchmarks.wrong_uses \\
        > results/wrong_uses.md

A use is a function that is given an empty directory. It must raise an error that a user
can mend, of one line.
"""

import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import jax
import numpy as np

import vgg_jax
from benchmarks import wrong_files
from benchmarks.wrong_files import (
    EDGE,
    FILE,
    Use,
    example,
    loads,
    loads_bytes,
    loads_h5,
    loads_own,
    loads_torch,
    saves,
    without,
)
from benchmarks.wrong_images import IMAGES
from vgg_jax.errors import UserError
from vgg_jax.nn.preprocessing import Preprocessing

_LAST = "classifier.6.weight"
_BOMB = np.zeros(10**7, np.float32)
# What is wrong -> the use. Files of weights, in and out.
WEIGHTS: dict[str, Use] = {
    "a file that is not there": lambda scratch: vgg_jax.load(scratch / "vgg16.pth"),
    "an empty file": loads_bytes(FILE, bytes),
    "a truncated file": loads_bytes(FILE, lambda: wrong_files.whole()[:-100]),
    "a text file": loads_bytes(FILE, lambda: b"<html>404 not found</html>"),
    "a header that declares a terabyte": loads_bytes(FILE, wrong_files.declares_more),
    "a header that is a terabyte long": loads_bytes(
        FILE, lambda: struct.pack("<Q", EDGE) + bytes(64)
    ),
    "a kind of file that is unknown": loads_bytes("vgg.npz", lambda: b"PK"),
    "a whole model of Keras 3": loads_bytes("vgg.keras", lambda: b"PK"),
    "a directory that is no run": lambda scratch: vgg_jax.load(scratch),
    "a file that is not what its name says": loads_bytes(
        "vgg16-397923af.pth", wrong_files.whole
    ),
    "a ResNet": loads(wrong_files.resnet),
    "an AlexNet": loads(wrong_files.alexnet),
    "one tensor too many": loads(wrong_files.put("aux.weight", np.ones(3, np.float32))),
    "one tensor missing": loads(lambda t: t.pop("features.3.bias") is None),
    "one tensor misnamed": loads(
        lambda t: t.update({"features.3.bais": t.pop("features.3.bias")})
    ),
    "a head of another width": loads(
        wrong_files.put(_LAST, np.ones((1000, 7), np.float32))
    ),
    "a kernel of 2x2 pixels": loads(
        wrong_files.put("features.0.weight", np.ones((4, 3, 2, 2), np.float32))
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
    "no preprocessing for weights that do not say": loads(wrong_files.features),
    "a preprocessing that is unknown": loads(lambda t: None, preprocessing="caffe"),
    "statistics in grey levels": lambda _: Preprocessing((123.7,) * 3, (58.4,) * 3),
    "a deviation of 0": lambda _: Preprocessing((0.5,), (0.0,)),
    "bgr in small letters": lambda _: Preprocessing((0.5,), (0.5,), "bgr"),
    "statistics that are no Preprocessing": loads(
        lambda t: None, preprocessing=((0.5,), (0.5,))
    ),
    "a directory of the hub": wrong_files.hub_snapshot,
    "a path of 400 letters": lambda _: vgg_jax.load("a" * 400),
    "a configuration that is a number": loads(lambda t: None, variant=16),
    "weights in float8": loads_bytes(FILE, wrong_files.float8),
    "a kernel without axes": loads(
        wrong_files.put("features.0.weight", np.ones((), np.float32))
    ),
    "a head without axes": loads(wrong_files.put(_LAST, np.ones((), np.float32))),
    "a new head for weights that lack more": wrong_files.replaces_the_head_of_a_body,
    "no classes": loads(lambda t: None, num_classes=0),
    "grey images' weights with colour statistics": loads(
        lambda t: t.update({"features.0.weight": t["features.0.weight"][:, :1].copy()})
    ),
    "logits of weights without a head": wrong_files.asks_for_logits,
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
    "a saved file with a deviation of 0": loads_own(
        lambda t, said: said["preprocessing"].update(std=[0, 0, 0])
    ),
    "a saved file whose random layers are a text": loads_own(
        lambda t, said: said.update(random_layers="conv1_1")
    ),
    "a saved file whose random layers are unknown": loads_own(
        lambda t, said: said.update(random_layers=["conv9_1"])
    ),
    "a saved file for images of -5 pixels": loads_own(
        lambda t, said: said.update(size=-5)
    ),
    "a saved file of version 9 with other fields": loads_own(
        lambda t, said: said.update(version="9.0", size=None)
    ),
    "a saved file that declares gigabytes": wrong_files.declares_gigabytes,
    "a pickle with code, as .pth": loads_bytes(
        "vgg.pth", lambda: pickle.dumps(wrong_files.Code())
    ),
    "an archive with code, as .pth": loads_bytes(
        "vgg.pth",
        lambda: wrong_files.archive(
            zipfile.ZIP_STORED, pickle.dumps(wrong_files.Code(), 2)
        ),
    ),
    "a zip bomb, as .pth": loads_bytes(
        "vgg.pth", lambda: wrong_files.archive(zipfile.ZIP_DEFLATED, bytes(10**7))
    ),
    "a whole module, as .pth": loads_torch(lambda torch, t: torch.nn.Linear(2, 2)),
    "a training checkpoint, as .pth": loads_torch(
        lambda torch, t: {"state_dict": {"a": torch.ones(2)}, "epoch": 7}
    ),
    "a terabyte of one number, as .pth": loads_torch(
        lambda torch, t: {"features.0.weight": torch.ones(1).expand(EDGE // 4)}
    ),
    "a program of TorchScript, as .pth": loads_bytes(
        "vgg.pth",
        lambda: wrong_files.archive(zipfile.ZIP_DEFLATED, bytes(range(256))),
    ),
    "weights in float8, as .pth": loads_torch(
        lambda torch, t: {"features.0.weight": torch.ones(4).to(torch.float8_e4m3fn)}
    ),
    "weights without values, as .pth": loads_torch(
        lambda torch, t: {"features.0.weight": torch.ones(4, device="meta")}
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
    "a model inside of a model, in .h5": loads_h5(
        lambda group, h5py: group.parent.create_group("layers")
    ),
    "the hub without its library": without(
        "huggingface_hub", lambda _: vgg_jax.load("hf://timm/vgg16.tv_in1k")
    ),
    "half a name on the hub": lambda _: vgg_jax.load("hf://vgg16"),
    "a run without a checkpoint": wrong_files.nothing_trained,
    "a run whose checkpoints are torn": wrong_files.torn_run,
    "checkpoint=newest of a run": lambda scratch: vgg_jax.load(
        wrong_files.old_run(scratch), checkpoint="newest"
    ),
    "a run without Orbax": wrong_files.without_orbax,
    "saving over a file": wrong_files.overwrites,
    "saving the variables alone": lambda scratch: vgg_jax.save(
        example().variables, scratch / FILE
    ),
    "saving a path to a network": lambda scratch: vgg_jax.save(
        scratch / FILE, example()
    ),
    "saving NaN": saves(
        lambda: wrong_files.changed(lambda params: params["fc8"]["bias"].fill(np.nan))
    ),
    "saving in float16 what is above 65,504": saves(
        lambda: wrong_files.changed(lambda params: params["fc8"]["bias"].fill(1e6)),
        dtype="float16",
    ),
    "saving two names for 1,000 classes": saves(
        lambda: example().replace(class_names=("cat", "dog"))
    ),
    "saving the weights of another model": saves(
        lambda: example().replace(model=example(classes=7).model)
    ),
    "saving the weights of a deeper model": saves(
        lambda: example().replace(model=example("conv3-4 |").model)
    ),
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
TABLES = {"Weights in and out": WEIGHTS, "Images, features and losses": IMAGES}


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
