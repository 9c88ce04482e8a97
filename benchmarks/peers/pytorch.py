"""PyTorch: channels-last, autocast for bfloat16, eager or `torch.compile`."""

from serve import read_job, serve

job = read_job()

import torch  # noqa: E402
import torch._inductor.config  # noqa: E402
from torch import nn  # noqa: E402

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def network():
    layers, channels = [], 3
    for width in WIDTHS:
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        if job["batch_norm"]:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers)


def main():
    torch.manual_seed(0)
    training, low = job["mode"] == "train", job["dtype"] == "bfloat16"
    model = network().to(memory_format=torch.channels_last).train(training)
    if low and not training:
        model = model.to(torch.bfloat16)  # faster than autocast: no casts of weights
    shape = (job["batch"], 3, job["size"], job["size"])
    images = torch.randn(shape).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (job["batch"],))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, foreach=True
    )
    torch._inductor.config.freezing = not training  # packs the weights once
    call = torch.compile(model) if job["compile"] else model

    def train_steps(n):
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                loss = nn.functional.cross_entropy(call(images), labels)
            loss.backward()
            optimizer.step()

    @torch.inference_mode()
    def infer_steps(n):
        batch = images.to(torch.bfloat16) if low else images
        for _ in range(n):
            call(batch)

    serve(train_steps if training else infer_steps, version=torch.__version__)


main()
