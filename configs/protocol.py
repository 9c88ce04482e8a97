"""The paper's training at CIFAR's scale: scaled pictures, of which 64 pixels are cut.

Two sevenths of the paper's sides: S is 73 or 110 for its 256 and 384, or uniform in
[73, 146] for [256, 512], and the crop 64 for 224, so that a training crop shows as much
of a picture as the paper's; CIFAR-10's 32 pixels are enlarged to that. Networks have a
paper head and no batch norm. The convolutions begin as the identity, so that a deep
network learns in few epochs; the deepest at S = 73 needs its gradients clipped, without
which its loss was NaN in the second epoch. The argument names the configuration and S:
`D,jitter`, `E,73`.

    python main.py --config=configs/protocol.py:D,jitter

`python -m benchmarks.protocol_table` trains these networks, and tests them by every
protocol of the paper (docs/protocol.md), on a GPU; narrower ones are
`--config.model.width=0.25`.
"""

from configs import default
from vgg_jax.errors import choose

SCALES = {"73": (73,), "110": (110,), "jitter": (73, 146)}
CLIPPED = ("E,73",)  # to a norm of 1


def get_config(argument="D,jitter"):
    variant, _, scale = argument.partition(",")
    config = default.get_config()
    config.epochs = 16
    config.lr = 0.05
    config.augment.scales = choose(SCALES, scale or "jitter", "configs/protocol.py")
    config.augment.resize = 64
    config.augment.flip = "random"
    config.model.variant = variant
    config.model.hidden = (512, 512)
    config.model.kernel_init = "identity"
    config.optimizer.nesterov = True
    config.optimizer.decay = "l2"
    config.optimizer.clip_norm = float(argument in CLIPPED)
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.0625  # one epoch
    return config
