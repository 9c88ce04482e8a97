"""PyTorch: torchvision's features, and the authors' LPIPS."""

from serve import read_job, serve

job = read_job()

import sys  # noqa: E402

# Beside this file is `pytorch.py`, whose name torchvision looks for.
sys.path.pop(0)
import lpips  # noqa: E402
import torch  # noqa: E402
import torch._inductor.config  # noqa: E402
import torchvision  # noqa: E402


def main():
    torch.manual_seed(0)
    shape = (job["batch"], 3, job["size"], job["size"])
    last = {"memory_format": torch.channels_last}
    x, y = (torch.rand(shape).to(**last) for _ in range(2))
    if job["task"] == "lpips":
        model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).to(**last)
        call = torch.compile(model) if job["compile"] else model
        x.requires_grad_(True)

        def steps(n):
            for _ in range(n):
                x.grad = None
                call(x, y, normalize=True).sum().backward()
    else:
        torch._inductor.config.freezing = True  # packs the weights once
        model = torchvision.models.vgg16(weights=None).features[:23].eval().to(**last)
        call = torch.compile(model) if job["compile"] else model

        @torch.inference_mode()
        def steps(n):
            for _ in range(n):
                call(x)

    serve(steps, version=torch.__version__)


main()
