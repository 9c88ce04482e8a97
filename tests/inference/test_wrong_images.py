"""Every wrong use of features and losses gets one line that names value and remedy."""

import re

import pytest

from benchmarks.wrong_images import IMAGES
from benchmarks.wrong_uses import told

# Use -> what its line must say. The uses are those of the table in the manual.
SAYS = {
    "floats without a range": r"float32 must come with value_range=\(0, 1\)",
    "[0, 255] said to be [0, 1]": r"from 0 to 248.* is it \(0, 255\)\?",
    "[-1, 1] said to be [0, 1]": r"from -1 to 0.94.* is it \(-1, 1\)\?",
    "values that bicubic interpolation overshot": "to 1.02.* clip them",
    "uint8 said to be [0, 1]": r"uint8 images, whose range is \(0, 255\): leave it out",
    "whole numbers in int32": "int32 are neither uint8 nor floating point",
    "a NaN among the pixels": "images hold NaN",
    "white below black": "two numbers, the smaller first",
    "a range that is a word": "'unit' must be two numbers",
    "channels first": r"images.transpose\(0, 2, 3, 1\)",
    "one image, without a batch": r"images\[None\]",
    "a grey image": "1 channels .* convert the pictures to RGB",
    "an image with transparency": "4 channels .* convert the pictures to RGB",
    "an image that vanishes before the layer": "3x3 are too small.* at least 4x4",
    "a layer that is unknown": "'relu3_3' is unknown .* did you mean relu2_1",
    "a layer in another program's numbers": "'features.29' is unknown .* did you mean",
    "a layer that is not in a tuple": r"\('relu3_3',\)",
    "no layer": r"layers=\[\] must be names",
    "logits of a network without a head": "has no fc8.* load it with num_classes=K",
    "other algorithms for other weights": "width belongs to the weights: only conv",
    "forward mode through the CPU's convolutions": "conv='lax'",
    "a perceptual loss of a random network": "2 of 2 layers.* random_weights=True",
    "a perceptual loss of images of two sizes": "must be of one size",
    "a loss that is compared with other layers": "must be of the same layers",
    "the style of a dense layer": "no pixels to sum over",
    "LPIPS on a random trunk": "1 of 13 layers.* random_weights=True",
    "LPIPS on VGG-19": "variant='E', not 'D'",
    "LPIPS on VGG-16-BN": "batch_norm=True, not False",
    "LPIPS on Keras' weights, which see BGR": "'keras', not 'imagenet'",
    "LPIPS with average pooling": "pool='average', not 'max'",
    "LPIPS of images of two sizes": "must be of one shape",
    "LPIPS of an image and a batch": "must be of one shape",
    "AlexNet's heads of LPIPS": r"lin1.*\[1, 192, 1, 1\], not \[1, 128, 1, 1\]",
    "four heads of LPIPS": r"VGG: lin4.model.1.weight none, not \[1, 512, 1, 1\]",
    "a negative head of LPIPS": "negative weights",
    "precision and recall of three images": "more than neighbours=3 rows",
    "precision and recall of two networks' features": r"must be \[N, D\] and \[M, D\]",
}


def test_every_use_is_tested():
    assert IMAGES.keys() == SAYS.keys()


@pytest.mark.parametrize("what", IMAGES)
def test_one_line(what):
    assert re.search(SAYS[what], told(IMAGES[what]))
