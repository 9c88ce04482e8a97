"""How the files beside this one were made. Run it for new ones, beside the old.

    benchmarks/envs/export/bin/python tests/interop/artefacts/make.py

A network of 8 and 16 channels, trained for half a minute on the embedded sample, so
that its answers are not those of noise; 16 test images and what it said of them.
"""

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
import vgg_jax
from configs import quickstart
from vgg_jax.data import datasets
from vgg_jax.interop import onnx_file, stablehlo

HERE = Path(__file__).parent


def main() -> None:
    """Trains, exports, and keeps what JAX computes."""
    vgg_jax.configure()
    config = quickstart.get_config()
    config.model.variant = "conv3-8 | conv3-16 | conv3-16 |"
    config.model.width = 1.0
    config.model.conv = "lax"
    config.epochs = 6
    with tempfile.TemporaryDirectory() as workdir:
        vgg_jax.train(config, Path(workdir) / "net")
        network = vgg_jax.load(Path(workdir) / "net").replace(source="make.py")
    vgg_jax.save(network, HERE / "net.safetensors", overwrite=True)
    stablehlo.save(network, HERE / "net.zip", overwrite=True)
    for layout in ("nhwc", "nchw"):
        path = HERE / f"net-{layout}.onnx"
        onnx_file.save(network, path, layout=layout, overwrite=True)
    test = datasets.load("cifar10_sample", validation="none").test
    images = np.asarray(test.images[:16])
    logits = network.configured(conv="lax", dtype=jax.numpy.float32)(images)
    probabilities = np.asarray(jax.nn.softmax(logits))
    np.savez(HERE / "sample.npz", images=images, probabilities=probabilities)
    right = (probabilities.argmax(1) == test.labels[:16]).sum()
    print(f"{right} of 16 right", probabilities.max(1).round(2))


if __name__ == "__main__":
    main()
