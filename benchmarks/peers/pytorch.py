"""PyTorch: channels-last, autocast for bfloat16, eager or `torch.compile`.

On a GPU, float32 is computed in TF32, as JAX does by default, and cuDNN looks for its
fastest algorithms.
"""

from serve import read_job, serve

job = read_job()

import torch  # noqa: E402
import torch._inductor.config  # noqa: E402
from torch import nn  # noqa: E402

TABLE = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
WIDTHS = [round(channels * job["width"]) for channels in TABLE]
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"


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
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True  # convolutions have it by default
    training, low = job["mode"] == "train", job["dtype"] == "bfloat16"
    model = network().to(DEVICE, memory_format=torch.channels_last).train(training)
    if low and not training:
        model = model.to(torch.bfloat16)  # faster than autocast: no casts of weights
    shape = (job["batch"], 3, job["size"], job["size"])
    images = torch.randn(shape).to(DEVICE, memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (job["batch"],)).to(DEVICE)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        **{"fused" if ON_GPU else "foreach": True},
    )
    torch._inductor.config.freezing = not training  # packs the weights once
    mode = "reduce-overhead" if job.get("graphs") else None
    call = torch.compile(model, mode=mode) if job["compile"] else model

    def train_steps(n):
        for _ in range(n):
            torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(DEVICE, torch.bfloat16, enabled=low):
                loss = nn.functional.cross_entropy(call(images), labels)
            loss.backward()
            optimizer.step()
        wait()

    @torch.inference_mode()
    def infer_steps(n):
        batch = images.to(torch.bfloat16) if low else images
        for _ in range(n):
            torch.compiler.cudagraph_mark_step_begin()
            call(batch)
        wait()

    serve(
        train_steps if training else infer_steps,
        torch.cuda.max_memory_allocated if ON_GPU else lambda: 0,
        version=torch.__version__,
    )


def wait():
    if ON_GPU:
        torch.cuda.synchronize()


main()
