"""The recipe of `configs/speedrun.py` in PyTorch: channels-last, autocast in bfloat16.

It runs on a GPU where there is one, float32 in TF32 there.

Job: `data`, the path of an .npz of training and test images, their labels and the
whitening kernel; `config`, ours, nested as in `config.json`; `seed`; `compile`; `mode`.
Mode "serve" answers as every peer does; mode "train" trains to the end and prints the
seconds that took and the test accuracy.
"""

import json
import sys
import time

from serve import read_job, serve

job = read_job()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
DEVICE = torch.get_default_device().type
CONFIG = job["config"]
LOW = CONFIG["model"]["dtype"] == "bfloat16"  # resolved: what ours computes in


class Net(nn.Module):
    """As `vgg_jax.nn.vgg.VGG` with batch norm, whitening and the compact head."""

    def __init__(self, options, whitening):
        super().__init__()
        self.scale = options["logit_scale"]
        layers, channels = [], 3
        for stage in options["variant"].rstrip("| ").split("|"):
            tokens = stage.split()
            for i, token in enumerate(tokens, 1):
                width = int(token.split("-")[1])
                layers.append(convolution(channels, width, whitening))
                if options["pool_early"] and i == len(tokens):
                    layers.append(nn.MaxPool2d(2))
                if channels > 3:
                    layers.append(nn.BatchNorm2d(width))
                    layers[-1].weight.requires_grad_(False)
                layers.append(nn.ReLU(inplace=True))
                channels = width
            if not options["pool_early"]:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 10)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3))) * self.scale


def convolution(channels, width, whitening):
    """Returns a 3x3 convolution, initialised as ours.

    The first one whitens and is not trained. Of the others, the first filters are the
    identity, the rest PyTorch's default.
    """
    conv = nn.Conv2d(channels, width, 3, padding=1)
    nn.init.zeros_(conv.bias)
    if channels == 3:
        conv.weight.data = torch.from_numpy(whitening).permute(3, 2, 0, 1)
        conv.weight.requires_grad_(False)
    else:
        nn.init.dirac_(conv.weight.data[:channels])
    return conv


def rate(step, total, warmup):
    """Returns learning rate over peak, as `schedule.Schedule(name="triangular")`."""
    if step < warmup:
        return step / warmup
    final = CONFIG["schedule"]["final_scale"]
    return 1 - (1 - final) * (step - warmup) / (total - warmup)


def prepare(images):
    mean = torch.tensor([125.30691805, 122.95039414, 113.86538318])
    std = torch.tensor([62.99321928, 62.08870764, 66.70489964])
    images = (torch.from_numpy(images).to(DEVICE).float() - mean) / std
    return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def crop(images, pad):
    n, _, size, _ = images.shape
    padded = F.pad(images, (pad,) * 4, "reflect").permute(0, 2, 3, 1)
    place = torch.randint(0, 2 * pad + 1, (2, n, 1))
    rows, columns = place + torch.arange(size)
    which = torch.arange(n)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(net, images, labels):
    net.eval()
    correct = 0
    for start in range(0, len(images), 500):
        x, y = images[start : start + 500], labels[start : start + 500]
        padded = F.pad(x, (1,) * 4, "reflect")
        views = [
            (x, 1 / 4),
            (padded[..., :-2, :-2], 1 / 8),
            (padded[..., 2:, 2:], 1 / 8),
        ]
        with torch.autocast(DEVICE, torch.bfloat16, enabled=LOW):
            logits = sum(w * (net(v) + net(v.flip(3))).float() for v, w in views)
        correct += (logits.argmax(1) == y).sum().item()
    net.train()
    return correct / len(images)


class Lookahead:
    """As `vgg_jax.training.weight_averaging.lookahead`."""

    def __init__(self, net, total):
        self.pairs = [(p, p.detach().clone()) for p in net.parameters()]
        self.total = total

    @torch.no_grad()
    def update(self, step):
        """Call it after update number `step`, counted from 0."""
        if (step + 1) % 5:
            return
        stays = CONFIG["lookahead"] ** 5 * (step / self.total) ** 3
        for weights, average in self.pairs:
            average.lerp_(weights, 1 - stays)
            weights.copy_(average)

    @torch.no_grad()
    def finish(self):
        """Puts the average, which is what is tested, in place of the weights."""
        for weights, average in self.pairs:
            weights.copy_(average)


class Training:
    """A whole run; `step` makes the next update."""

    def __init__(self, arrays):
        self.images = prepare(arrays["images"])
        self.labels = torch.from_numpy(arrays["labels"]).to(DEVICE).long()
        net = Net(CONFIG["model"], arrays["whitening"])
        self.net = net.to(DEVICE, memory_format=torch.channels_last).train()
        self.call = torch.compile(self.net) if job.get("compile") else self.net
        self.steps = len(self.images) // CONFIG["batch_size"]  # per epoch
        self.total = CONFIG["epochs"] * self.steps
        self.optimizer = self._optimizer()
        self.lookahead = Lookahead(self.net, self.total)
        self.coin = torch.rand(len(self.images)) < 0.5
        self.updates, self.order = 0, None

    def _optimizer(self):
        options = CONFIG["optimizer"]
        norms = [m.bias for m in self.net.modules() if isinstance(m, nn.BatchNorm2d)]
        others = [m for m in self.net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        kernels = [m.weight for m in others if m.weight.requires_grad]
        table = (  # parameters, weight decay, scale of the learning rate
            (norms, 0.0, options["bias_scale"]),
            ([m.bias for m in others], 0.0, 1.0),
            (kernels, options["weight_decay"], 1.0),
        )
        groups = [
            {"params": params, "weight_decay": decay, "scale": scale}
            for params, decay, scale in table
        ]
        return torch.optim.SGD(
            groups, lr=1.0, momentum=options["momentum"], nesterov=options["nesterov"]
        )

    def batch(self):
        """Returns the next batch, cropped and mirrored, and its labels."""
        epoch, place = divmod(self.updates, self.steps)
        if place == 0 or self.order is None:
            self.order = torch.randperm(len(self.images))
        size = CONFIG["batch_size"]
        index = self.order[place * size : (place + 1) * size]
        x = crop(self.images[index], CONFIG["augment"]["crop"])
        flip = self.coin[index] ^ (epoch % 2 == 1)
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
        return x.contiguous(memory_format=torch.channels_last), self.labels[index]

    def step(self):
        warmup = round(CONFIG["schedule"]["warmup"] * self.total)
        for group in self.optimizer.param_groups:
            relative = rate(self.updates, self.total, warmup)
            group["lr"] = CONFIG["lr"] * group["scale"] * relative
        x, labels = self.batch()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=LOW):
            logits = self.call(x)
        loss = F.cross_entropy(
            logits.float(), labels, label_smoothing=CONFIG["label_smoothing"]
        )
        loss.backward()
        self.optimizer.step()
        self.lookahead.update(self.updates)
        self.updates += 1


def train(arrays):
    """Trains to the end; returns the seconds that took, and the test accuracy."""
    run = Training(arrays)
    start = time.perf_counter()
    for i in range(1, run.total + 1):
        run.step()
        if i % run.steps == 0:
            wait()
            seconds = time.perf_counter() - start
            print(f"epoch {i // run.steps} {seconds:.0f} s", file=sys.stderr)
    run.lookahead.finish()
    wait()
    seconds = time.perf_counter() - start
    images = prepare(arrays["test_images"])
    labels = torch.from_numpy(arrays["test_labels"]).to(DEVICE).long()
    return {"seconds": seconds, "accuracy": accuracy(run.net, images, labels)}


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def main():
    torch.manual_seed(job["seed"])
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True  # convolutions have it by default
    arrays = np.load(job["data"])
    if job["mode"] == "serve":
        run = Training(arrays)
        serve(lambda n: ([run.step() for _ in range(n)], wait()))
    else:
        print(json.dumps(train(arrays)))


main()
