"""A trained network taken to other images: all of it but a new `fc8`.

It starts from a run's workdir or a file of weights, `--config.init.path`; the argument
says whose network that is, a config of this directory. `model.frozen` keeps layers as
they are; with `("conv*", "bn*")` nothing but `fc8` trains, a linear probe.
`optimizer.layer_rates` gives layers learning rates of their own. docs/finetune.md has
more, and what it is worth.

    python main.py --config=configs/finetune.py:quickstart \\
        --config.init.path=runs/quickstart --config.data.name=photos
"""

from configs import default, quickstart, speedrun, vgg16_bn
from vgg_jax.errors import choose

NETWORKS = {"quickstart": quickstart, "speedrun": speedrun, "vgg16_bn": vgg16_bn}


def get_config(network="vgg16_bn"):
    config = default.get_config()
    config.model = choose(NETWORKS, network, "configs/finetune.py").get_config().model
    config.init.layers = ("conv*", "bn*")
    config.epochs = 10
    config.batch_size = 64
    config.lr = 0.03
    config.label_smoothing = 0.1
    config.test_with = "last"
    config.augment.crop = 4
    config.augment.crop_mode = "reflect"
    config.augment.flip = "random"
    config.optimizer.nesterov = True
    config.optimizer.decay = "l2"
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.1
    return config
