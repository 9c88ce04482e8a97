"""VGG-16 (D) with batch norm and a compact head on CIFAR-10, by Muon.

The network is the usual one (kuangliu, chenyaofo: 14.7 M parameters); 49,000 images are
trained on, 1,000 are the validation of the learning curve. What is not said here is the
speedrun's recipe. `:A` is VGG-11.

    python main.py --config=configs/vgg16_bn.py   # 94.40%, seed 0, 133 min on AVX2
"""

from configs import default, speedrun


def get_config(variant="D"):
    config = speedrun.get_config()
    config.epochs = 24
    config.batch_size = 512
    config.lr = 0.25
    config.augment.cutout = 8
    config.optimizer.muon = 0.4
    config.optimizer.decay = "decoupled"
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = 0.083333333  # two epochs
    config.data.train = "train[:98%]"
    config.data.validation = "train[98%:]"
    network = default.get_config().model
    network.variant = variant
    network.batch_norm = True
    network.head = "compact"
    network.kernel_init = "identity"
    network.logit_scale = config.model.logit_scale
    config.model = network
    return config
