"""VGG-16 (D) with batch norm and a compact head on CIFAR-10: the usual strong baseline.

python main.py --config=configs/vgg16_bn.py
"""

from configs import vgg16


def get_config(variant="D"):
    config = vgg16.get_config(variant)
    config.epochs = 40
    config.lr = 0.1
    config.model.batch_norm = True
    config.model.head = "compact"
    config.optimizer.nesterov = True
    config.optimizer.decay = "l2"
    config.optimizer.decay_all = False
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    return config
