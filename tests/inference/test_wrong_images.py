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
    "[0, 255] said to be [0, 1], under jax.grad": r"is it \(0, 255\)\?",
    "a range that is two letters": "'01' must be two numbers",
    "a range that is a word": "'unit' must be two numbers",
    "channels first": r"images.transpose\(0, 2, 3, 1\)",
    "one image, without a batch": r"images\[None\]",
    "a grey image": "1 channels .* convert the pictures to RGB",
    "an image with transparency": "4 channels .* convert the pictures to RGB",
    "a grey image for statistics of one number": "1 channels where .* expects 3",
    "channels first for statistics of one number": r"transpose\(0, 2, 3, 1\)",
    "images of another size than the head's": "give fc7 128 values, .* for 512: scale",
    "a path for images": "images must be one array .* a str",
    "images of two sizes": "images must be one array .* images of several sizes",
    "a path for a network": "'vgg.safetensors' is a str, not a Network: vgg_jax.load",
    "an image that vanishes before the layer": "3x3 are too small.* at least 4x4",
    "a layer that is unknown": "'relu3_3' is unknown .* did you mean relu2_1",
    "a layer in another program's numbers": "'features.29' is unknown .* did you mean",
    "a layer that is not in a tuple": r"\('relu3_3',\)",
    "a layer that is a number": "layers=5 must be names of layers",
    "a layer in a list in a list": r"layer=\['pool2'\] is unknown",
    "a layer of content that is not in a tuple": "layers='relu2_1' must be names",
    "no layer": r"layers=\[\] must be names",
    "logits of a network without a head": "has no fc8.* load it with num_classes=K",
    "other algorithms for other weights": "width belongs to the weights: only conv",
    "forward mode through the CPU's convolutions": "conv='lax'",
    "a perceptual loss of a random network": "2 of 2 layers.* random_weights=True",
    "a perceptual loss of images of two sizes": "must be of one size",
    "a loss that is compared with other layers": "must be of the same layers",
    "the total variation of uint8": "uint8 must be .* floating point",
    "the total variation of an image without a batch": r"\[32, 32, 3\].* must be \[B",
    "the style of a dense layer": "no pixels to sum over",
    "LPIPS on a random trunk": "1 of 13 layers.* random_weights=True",
    "LPIPS on VGG-19": "variant='E', not 'D'",
    "LPIPS on VGG-16-BN": "batch_norm=True, not False",
    "LPIPS on Keras' weights, which see BGR": "'keras', not 'imagenet'",
    "LPIPS with average pooling": "pool='average', not 'max'",
    "LPIPS of images of two sizes": "must be of one shape",
    "LPIPS of an image and a batch": "must be of one shape",
    "LPIPS with the path of its heads": "heads='vgg.pth' must be as load_heads",
    "LPIPS with one head": r"must be as load_heads\(path\)",
    "AlexNet's heads of LPIPS": r"lin1.*\[1, 192, 1, 1\], not \[1, 128, 1, 1\]",
    "four heads of LPIPS": r"VGG: lin4.model.1.weight none, not \[1, 512, 1, 1\]",
    "a negative head of LPIPS": "negative weights",
    "precision and recall of three images": "more than neighbours=3 rows",
    "precision and recall with no neighbour": "neighbours=0 .* at least 1",
    "precision and recall of NaN": "hold NaN",
    "a linear probe of strength 0": r"strengths=\(0,\) .* above 0",
    "a linear probe of one strength": "strengths=1.0 must be a tuple of numbers",
    "a linear probe of labels in floating point": "labels of type float64",
    "a linear probe of no test images": r"test: .*\[0, 4\]",
    "precision and recall of two networks' features": r"must be \[N, D\] and \[M, D\]",
}


def test_every_use_is_tested():
    assert IMAGES.keys() == SAYS.keys()


@pytest.mark.parametrize("what", IMAGES)
def test_one_line(what):
    assert re.search(SAYS[what], told(IMAGES[what]))
