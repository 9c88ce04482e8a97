"""VGG-19 (configuration E) on CIFAR-10, trained as `vgg16.py`.

python main.py --config=configs/vgg19.py
"""

from configs import vgg16


def get_config():
    return vgg16.get_config("E")
