"""VGG-13 (configuration B) on CIFAR-10, trained as `vgg16.py`.

python main.py --config=configs/vgg13.py
"""

from configs import vgg16


def get_config():
    return vgg16.get_config("B")
