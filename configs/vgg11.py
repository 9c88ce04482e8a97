"""VGG-11 (configuration A) on CIFAR-10, trained as `vgg16.py`.

python main.py --config=configs/vgg11.py
"""

from configs import vgg16


def get_config():
    return vgg16.get_config("A")
