"""PyTorch: batches of a folder of pictures, by torchvision and a `DataLoader`."""

from serve import read_job, serve

job = read_job()

import itertools  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402

# Beside this file is `pytorch.py`, whose name torchvision looks for.
sys.path.pop(0)
import torch  # noqa: E402
from torchvision import datasets  # noqa: E402
from torchvision.transforms import v2  # noqa: E402


class Scale:
    """Scales the smaller side to a random number of pixels."""

    def __call__(self, picture):
        side = random.randint(*job["scales"])
        return v2.functional.resize(picture, side)


def main():
    transform = v2.Compose([Scale(), v2.RandomCrop(job["size"]), v2.PILToTensor()])
    pictures = datasets.ImageFolder(job["folder"], transform)
    loader = torch.utils.data.DataLoader(
        pictures,
        batch_size=job["batch"],
        shuffle=True,
        num_workers=job["workers"],
        drop_last=True,
    )
    torch.set_num_threads(1)

    def steps(n):
        left = n
        while left:
            for _ in itertools.islice(loader, left):
                left -= 1

    serve(steps, version=torch.__version__)


main()
