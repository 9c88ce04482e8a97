"""The paper's training (section 3.1): ImageNet, or any folder of pictures.

Batches of 256, momentum 0.9, L2 5e-4 in the gradient, dropout 0.5 after fc6 and fc7, a
learning rate of 0.01 divided by 10 when the validation accuracy stops improving, three
times at most, 74 epochs. Pictures are scaled so that the smaller side has S pixels, 224
of them are cut out at random and mirrored at random, and the colours are shifted along
their principal components. The paper tests on ImageNet's validation split; so does
this, and holds ten thousand training pictures out to choose by.

    python main.py --config=configs/imagenet.py                     # D, S = 256
    python main.py --config=configs/imagenet.py:384 --config.init.path=runs/imagenet
    python main.py --config=configs/imagenet.py:jitter --config.init.path=runs/s384
    python main.py --config=configs/imagenet.py:folder --config.data.name=folder:photos

`:384` and `:jitter` (S uniform in [256, 512]) start from a network of another S, as the
paper does, the former at a rate of 1e-3. `:from_a` starts a deeper network from a run
of A, of which it takes the first four convolutions and the dense layers. `:folder` is
for pictures in folder/class/, of which a tenth is held out and a tenth is the test;
several go together, `:folder,jitter`. `--config.shards=8` computes a batch in eight
parts, in less memory. Nobody has run this on ImageNet here.
"""

from configs import default
from vgg_jax.errors import choose

_FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc*")


def get_config(start=""):
    config = default.get_config()
    config.epochs = 74
    config.batch_size = 256
    config.eval_batch_size = 256
    config.data.name = "imagenet2012"
    config.data.train = "train[10000:]"
    config.data.validation = "train[:10000]"
    config.data.test = "validation"
    config.data.stream = True
    config.augment.resize = 224
    config.augment.scales = (256,)
    config.augment.flip = "random"
    config.augment.colour = 0.1
    config.augment.normalize = "imagenet"
    config.optimizer.decay = "l2"
    config.schedule.monitor = "val_accuracy"
    config.schedule.patience = 3
    config.checkpoint.monitor = "accuracy"
    config.model.num_classes = 1000
    for name in filter(None, start.split(",")):
        choose(_STARTS, name, "configs/imagenet.py")(config)
    return config


def _s384(config):
    config.augment.scales = (384,)
    config.lr = 1e-3


def _jitter(config):
    config.augment.scales = (256, 512)


def _from_a(config):
    config.init.layers = _FROM_A


def _folder(config):
    config.model.num_classes = 0
    config.data.train = "train[:80%]"
    config.data.validation = "train[80%:90%]"
    config.data.test = "train[90%:]"


_STARTS = {"384": _s384, "jitter": _jitter, "from_a": _from_a, "folder": _folder}
