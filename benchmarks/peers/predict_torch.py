"""PyTorch: a folder of pictures by torchvision's VGG-11-BN, decoded by threads."""

from serve import read_job, serve

job = read_job()

import itertools  # noqa: E402
import sys  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402

# Beside this file is `pytorch.py`, whose name torchvision looks for.
sys.path.pop(0)
import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402
import torch  # noqa: E402
import torch._inductor.config  # noqa: E402
import torchvision  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

MEAN = torch.tensor(job["mean"]).view(1, 3, 1, 1)
STD = torch.tensor(job["std"]).view(1, 3, 1, 1)


def read(file):
    with PIL.Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def main():
    torch._inductor.config.freezing = True  # packs the weights once
    model = torchvision.models.vgg11_bn(weights=None)
    model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    model.classifier = torch.nn.Linear(512, 10)
    model.load_state_dict(load_file(job["torch_weights"]), strict=True)
    model = model.eval().to(memory_format=torch.channels_last)
    call = torch.compile(model) if job["compile"] else model
    files, batch = sorted(Path(job["folder"]).iterdir()), job["batch"]

    @torch.inference_mode()
    def classify(pictures):
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return call((images.float() / 255 - MEAN) / STD).softmax(1).numpy()

    def once():
        with ThreadPoolExecutor(4) as pool:
            chunks = itertools.batched(files, batch)
            coming = [pool.submit(read, file) for file in next(chunks)]
            while coming:
                found = coming
                coming = [pool.submit(read, file) for file in next(chunks, ())]
                classify([future.result() for future in found])

    def steps(n):
        for _ in range(n):
            once()

    serve(steps, version=torch.__version__)


main()
