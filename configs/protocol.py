"""The paper's training at CIFAR's scale: scaled pictures, of which 32 pixels are cut.

A seventh of the paper's sides: S is 36 for its 256, or uniform in [36, 73] for
[256, 512], the crop 32 for 224, with a network of a quarter of the width, a paper head
and no batch norm. The convolutions begin as the identity, so that a deep network learns
in few epochs. The argument names the configuration and S: `D,jitter`, `E,36`.

    python main.py --config=configs/protocol.py:D,jitter

`python -m benchmarks.protocol_table` trains these networks, and tests them by every
protocol of the paper. It has not been run to its end yet.
"""

from configs import default
from vgg_jax.errors import choose

SCALES = {"36": (36,), "54": (54,), "jitter": (36, 73)}


def get_config(argument="D,jitter"):
    variant, _, scale = argument.partition(",")
    config = default.get_config()
    config.epochs = 12
    config.lr = 0.05
    config.augment.scales = choose(SCALES, scale or "jitter", "configs/protocol.py")
    config.augment.resize = 32
    config.augment.flip = "random"
    config.model.variant = variant
    config.model.width = 0.25
    config.model.hidden = (256, 256)
    config.model.dropout = 0.2
    config.model.kernel_init = "identity"
    config.optimizer.nesterov = True
    config.optimizer.decay = "l2"
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.083333333  # one epoch
    return config
