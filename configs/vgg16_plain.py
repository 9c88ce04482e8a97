"""VGG-16 C without batch norm, by `vgg16_bn.py`'s recipe.

From identity initialisation, and with the learning rate and decay a network needs whose
activations nothing rescales. `:D` is configuration D.

    python main.py --config=configs/vgg16_plain.py   # 94.02%, seed 0, 119 min on AVX2
"""

from configs import vgg16_bn


def get_config(variant="C"):
    config = vgg16_bn.get_config(variant)
    config.epochs = 26
    config.lr = 0.025
    config.schedule.warmup = 0.076923077  # two epochs
    config.model.batch_norm = False
    config.optimizer.muon = 1.0
    config.optimizer.weight_decay = 0.02
    config.optimizer.bias_scale = 1.0
    return config
