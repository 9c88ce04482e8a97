"""A first run, in minutes on a laptop: a small VGG-11 on 4,000 real CIFAR-10 images.

Trains on the sample that comes with the repository, so nothing is downloaded.

    python main.py --config=configs/quickstart.py
"""

from configs import default


def get_config():
    config = default.get_config()
    config.epochs = 30
    config.batch_size = 64
    config.lr = 0.05
    config.label_smoothing = 0.1
    config.test_with = "last"
    config.data.name = "cifar10_sample"
    config.augment.crop = 4
    config.augment.crop_mode = "reflect"
    config.augment.flip = "alternating"
    config.model.variant = "A"
    config.model.width = 0.5
    config.model.batch_norm = True
    config.model.head = "compact"
    config.optimizer.nesterov = True
    config.optimizer.decay = "l2"
    config.optimizer.decay_all = False
    config.schedule.name = "triangular"
    config.schedule.warmup = 0.1
    return config
