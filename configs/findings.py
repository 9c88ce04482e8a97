"""The paper's comparisons of networks, at CIFAR's scale and a budget of 16 epochs.

Networks without batch norm and with the compact head, whose convolutions begin as the
identity, so that the deep ones learn within that budget; on 40,000 images, all trained
alike; judged on the 10,000 held out. A against A-LRN; B against C against D; B against
a network with one 5x5 for every pair of 3x3 (section 2.3):

    python -m vgg_jax sweep --config=configs/findings.py --seeds=3 \\
        --workdir=runs/findings '--config.model.variant=D,C,B,A,A-LRN,conv5-64 | conv5-128 | conv5-256 | conv5-512 | conv5-512 |'

With fewer variants, in another workdir, it is one comparison. For a CPU there are
`--config.model.width=0.25` and `--devices=cpu0,cpu1`.
"""  # noqa: E501

from configs import vgg16


def get_config(variant="D"):
    config = vgg16.get_config(variant)
    config.epochs = 16
    config.lr = 0.05
    config.model.head = "compact"
    config.model.dropout = 0.5  # the default: a compact head has none
    config.model.kernel_init = "identity"
    config.optimizer.nesterov = True
    config.optimizer.decay = "l2"
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.0625  # one epoch
    return config
