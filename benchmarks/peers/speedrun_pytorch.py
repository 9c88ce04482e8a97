"""The recipe of `configs/speedrun.py` in PyTorch: bfloat16 autocast, channels-last.

Job: `data` (an .npz of training and test images and labels, and the whitening kernel),
`config` (ours, nested), `threads`. Mode "serve" answers as every peer does, a step at a
time; mode "train" trains to the end and prints seconds and test accuracy.
"""

import json
import sys
import time

from serve import job, serve

todo = job()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

CONFIG = todo["config"]


class Net(nn.Module):
    def __init__(self, variant, whitening):
        super().__init__()
        layers, channels = [], 3
        for token in variant.split():
            if token == "|":
                layers.append(nn.MaxPool2d(2))
                continue
            width = int(token.split("-")[1])
            conv = nn.Conv2d(channels, width, 3, padding=1)
            nn.init.zeros_(conv.bias)
            if channels == 3:
                conv.weight.data = torch.from_numpy(whitening).permute(3, 2, 0, 1)
                conv.weight.requires_grad_(False)
            else:
                nn.init.dirac_(conv.weight.data[:channels])
            norm = nn.BatchNorm2d(width)
            norm.weight.requires_grad_(False)
            layers += [conv, norm, nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 10)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3))) * CONFIG["model"]["logit_scale"]


def rate(step, total, warmup):
    """Learning rate over its peak; as `optimizer.schedule("triangular")`."""
    if step < warmup:
        return step / warmup
    final = CONFIG["schedule"]["final_scale"]
    return 1 - (1 - final) * (step - warmup) / (total - warmup)


def prepare(images):
    mean = torch.tensor([125.30691805, 122.95039414, 113.86538318])
    std = torch.tensor([62.99321928, 62.08870764, 66.70489964])
    images = (torch.from_numpy(images).float() - mean) / std
    return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def crop(images, pad):
    n, _, size, _ = images.shape
    padded = F.pad(images, (pad,) * 4, "reflect")
    out = torch.empty_like(images)
    places = torch.randint(0, 2 * pad + 1, (n, 2))
    for i in range(2 * pad + 1):
        for j in range(2 * pad + 1):
            own = (places == torch.tensor([i, j])).all(1)
            out[own] = padded[own, :, i : i + size, j : j + size]
    return out


@torch.inference_mode()
def accuracy(net, images, labels):
    net.eval()
    right = 0
    for start in range(0, len(images), 500):
        x, y = images[start : start + 500], labels[start : start + 500]
        padded = F.pad(x, (1,) * 4, "reflect")
        views = [
            (x, 1 / 4),
            (padded[..., :-2, :-2], 1 / 8),
            (padded[..., 2:, 2:], 1 / 8),
        ]
        with torch.autocast("cpu", torch.bfloat16):
            logits = sum(w * (net(v) + net(v.flip(3))).float() for v, w in views)
        right += (logits.argmax(1) == y).sum().item()
    net.train()
    return right / len(images)


def main():
    torch.manual_seed(todo["seed"])
    arrays = np.load(todo["data"])
    images, labels = (
        prepare(arrays["images"]),
        torch.from_numpy(arrays["labels"]).long(),
    )
    net = Net(CONFIG["model"]["variant"], arrays["whitening"])
    net = net.to(memory_format=torch.channels_last).train()
    options, batch = CONFIG["optimizer"], CONFIG["batch_size"]
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if n.endswith("bias")], "weight_decay": 0.0,
         "scale": options["bias_scale"]},
        {"params": [p for n, p in named if not n.endswith("bias")], "scale": 1.0,
         "weight_decay": options["weight_decay"]},
    ]  # fmt: skip
    optimizer = torch.optim.SGD(
        groups, lr=1.0, momentum=options["momentum"], nesterov=options["nesterov"]
    )
    steps = len(images) // batch
    total = CONFIG["epochs"] * steps
    warmup = round(CONFIG["schedule"]["warmup_epochs"] * steps)
    coin = torch.rand(len(images)) < 0.5
    done, order = 0, None

    def step():
        nonlocal done, order
        epoch, place = divmod(done, steps)
        if place == 0 or order is None:
            order = torch.randperm(len(images))
        for group in optimizer.param_groups:
            group["lr"] = CONFIG["lr"] * group["scale"] * rate(done, total, warmup)
        index = order[place * batch : (place + 1) * batch]
        x = crop(images[index], CONFIG["augment"]["crop"])
        flip = coin[index] ^ (epoch % 2 == 1)
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
        x = x.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x)
        loss = F.cross_entropy(
            logits.float(), labels[index], label_smoothing=CONFIG["label_smoothing"]
        )
        loss.backward()
        optimizer.step()
        done += 1

    if todo["mode"] == "serve":
        serve(lambda n: [step() for _ in range(n)])
        return
    start = time.perf_counter()
    for i in range(total):
        step()
        if (i + 1) % steps == 0:
            print(f"epoch {(i + 1) // steps} {time.perf_counter() - start:.0f} s",
                  file=sys.stderr)  # fmt: skip
    seconds = time.perf_counter() - start
    test = (
        prepare(arrays["test_images"]),
        torch.from_numpy(arrays["test_labels"]).long(),
    )
    print(json.dumps({"seconds": seconds, "accuracy": accuracy(net, *test)}))


main()
