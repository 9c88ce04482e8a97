"""LPIPS beside the authors' own package, on pairs of real images.

    benchmarks/envs/parity/bin/python -m benchmarks.parity_lpips \\
        > results/parity/lpips.txt

`lpips.LPIPS(net="vgg", pnet_rand=True)` with its published heads and a random trunk;
the same trunk reaches `vgg_jax.load` as a file of torchvision's names. Pairs are images
of CIFAR-10 (the embedded sample), enlarged to 64x64, beside themselves shifted, noisy,
blurred or darker, and beside other images. The environment is that of
`benchmarks/parity.py`.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vgg_jax
from vgg_jax.data import datasets
from vgg_jax.inference.lpips import load_heads, lpips

PAIRS, SIZE, CHUNK = 1000, 64, 50
LIMIT = 1e-5


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Returns images and what they are compared with, `[N, 64, 64, 3]` in [-1, 1]."""
    split = datasets.load("cifar10_sample", validation="none").train
    images = np.asarray(split.images[:PAIRS], np.float32)
    rng = np.random.default_rng(0)
    changes: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda x: np.roll(x, (1, 2), (1, 2)),
        lambda x: x + rng.normal(0, 20, x.shape),
        lambda x: (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 3,
        lambda x: 0.7 * x,
        lambda x: x[::-1],
    ]
    parts = np.array_split(images, len(changes))
    others = [change(part) for change, part in zip(changes, parts, strict=True)]
    changed = np.concatenate(others).clip(0, 255).astype(np.float32)
    scale = lambda x: x.repeat(2, 1).repeat(2, 2) / np.float32(127.5) - 1
    return scale(images), scale(changed)


def peer(scratch: Path) -> tuple[Any, Path, Path]:
    """Returns their module, the file of its trunk and the file of its heads."""
    torch: Any = importlib.import_module("torch")
    package: Any = importlib.import_module("lpips")
    torch.manual_seed(0)
    module = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    tensors = {
        f"features.{name.split('.', 1)[1]}": tensor.contiguous()
        for name, tensor in module.net.state_dict().items()
    }
    path = scratch / "trunk.safetensors"
    importlib.import_module("safetensors.torch").save_file(tensors, path)
    return module, path, Path(package.__file__).parent / "weights/v0.1/vgg.pth"


def theirs(
    module: Any, x: np.ndarray, y: np.ndarray, dtype: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns distances, and the gradient of their sum by the first images."""
    torch: Any = importlib.import_module("torch")
    module = module.to(getattr(torch, dtype))
    first, second = (
        torch.from_numpy(a.astype(dtype)).permute(0, 3, 1, 2) for a in (x, y)
    )
    first.requires_grad_(True)
    distance = module(first, second)
    distance.sum().backward()
    gradient = first.grad.permute(0, 2, 3, 1).numpy()
    return distance.detach().numpy().reshape(-1), gradient


def spread(found: np.ndarray, wanted: np.ndarray) -> str:
    """Returns the norm of the difference over the norm, of images, as text.

    A rounding that moves one activation across zero changes a gradient by one path.
    """
    norms = lambda x: np.sqrt(np.square(np.asarray(x, np.float64)).sum((1, 2, 3)))
    errors = norms(found - wanted) / norms(wanted)
    return f"{np.median(errors):.1e} (median), {errors.max():.1e} (largest)"


def main():
    images, others = pairs()
    with tempfile.TemporaryDirectory() as scratch:
        module, trunk, heads = peer(Path(scratch))
        network = vgg_jax.load(trunk, preprocessing="imagenet")
        same = all(
            bool((a == b).all())
            for a, b in zip(load_heads(heads), load_heads(), strict=True)
        )
    versions = [
        f"{n} {importlib.import_module(n).__version__}" for n in ("torch", "jax")
    ]
    print(
        f"lpips 0.1.4, {', '.join(versions)}, float32, {PAIRS} pairs of {SIZE}x{SIZE}"
    )
    print(f"the heads are theirs, bit for bit: {same}")
    starts = range(0, PAIRS, CHUNK)
    wanted, slopes = zip(
        *(theirs(module, images[i : i + CHUNK], others[i : i + CHUNK]) for i in starts),
        strict=True,
    )
    wanted = np.concatenate(wanted)
    print(f"distances from {wanted.min():.4f} to {wanted.max():.4f}")
    exact = theirs(module, images[:CHUNK], others[:CHUNK], "float64")[1]
    print(
        f"gradients, against theirs in float64: theirs in float32 "
        f"{spread(slopes[0], exact)}"
    )
    failed = not same
    for conv in ("lax", "auto"):
        distance = jax.jit(
            partial(lpips, network.configured(conv=conv), value_range=(-1, 1))
        )
        slope = jax.jit(jax.grad(lambda x, y, d=distance: d(x, y).sum()))
        found = np.concatenate(
            [distance(images[i : i + CHUNK], others[i : i + CHUNK]) for i in starts]
        )
        worst = (np.abs(found - wanted) / wanted).max()
        errors = spread(slope(images[:CHUNK], others[:CHUNK]), exact)
        equal = np.isfinite(slope(images[:CHUNK], images[:CHUNK])).all()
        print(
            f"conv={conv:4}  distances: largest relative difference {worst:.1e}  "
            f"gradients {errors}  equal images: finite {equal}",
            flush=True,
        )
        failed |= bool(worst > LIMIT)
    black = -np.ones((1, SIZE, SIZE, 3), np.float32)
    _, slope = theirs(module, images[:1], images[:1])
    print(f"theirs, equal images: gradient finite {bool(np.isfinite(slope).all())}")
    for bias in module.net.parameters():
        if bias.ndim == 1:
            bias.data.fill_(-100.0)  # pixels without any activation
    _, slope = theirs(module, images[:1], black)
    print(f"theirs, pixels without activation: {np.isnan(slope).mean():.0%} is NaN")
    sys.exit(failed)


if __name__ == "__main__":
    main()
