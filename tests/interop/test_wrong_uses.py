"""Every wrong use of `load` and `save` gets one line that names value and remedy."""

import re

import pytest

from benchmarks.wrong_uses import WEIGHTS, told

# Use -> what its line must say. The uses are those of the table in the manual.
SAYS = {
    "a file that is not there": "vgg16.pth does not exist: name a file",
    "an empty file": "is empty: fetch or save it again",
    "a truncated file": "is damaged, or no safetensors file",
    "a text file": "is damaged, or no safetensors file",
    "a header that declares a terabyte": "is damaged, or no safetensors file",
    "a header that is a terabyte long": "is damaged, or no safetensors file",
    "a kind of file that is unknown": "no file of weights .* .safetensors, .pth",
    "a whole model of Keras 3": "model.save_weights",
    "a directory that is no run": "directory, and no run's workdir",
    "a file that is not what its name says": "SHA-256 .* not with the 397923af",
    "a ResNet": "is no VGG .* called bn1.weight, conv1.weight, fc.bias",
    "an AlexNet": r"unused: classifier.1.bias.*; missing: classifier.0",
    "one tensor too many": "unused: aux.weight; missing: none",
    "one tensor missing": "unused: none; missing: features.3.bias",
    "one tensor misnamed": "unused: features.3.bais; missing: features.3.bias",
    "a head of another width": r"classifier.6.weight of shape \[1000, 7\].*7 inputs",
    "a kernel of 2x2 pixels": "convolution of 2x2",
    "a NaN among the weights": "features.3.weight holds NaN",
    "weights in int8": "is of type int8",
    "batch norm after one convolution only": "after some convolutions only",
    "E's name for another network": "variant='E', but .* configuration conv3-4",
    "a configuration that is unknown": "variant='F' is unknown; choose one of",
    "no preprocessing for weights that do not say": "say preprocessing=, one of unit",
    "a preprocessing that is unknown": "preprocessing='caffe' is unknown",
    "statistics in grey levels": "mean=.* divide grey levels by 255",
    "a deviation of 0": r"std=\(0.0,\) must be numbers in units",
    "bgr in small letters": "order='bgr' is unknown; choose one of: RGB, BGR",
    "statistics that are no Preprocessing": "must be a Preprocessing, or one of: unit",
    "a directory of the hub": "name a file of weights, model.safetensors in it",
    "a path of 400 letters": "File name too long$",
    "a configuration that is a number": "variant=16 must be a string",
    "weights in float8": "features.0.weight is of type F8_E4M3",
    "a kernel without axes": "has no convolution at features.0",
    "a head without axes": "missing: none|lacks a dense|classifier.6.weight",
    "a new head for weights that lack more": "has no fc6, fc7.* a new fc8 only",
    "no classes": "num_classes=0 .* at least 1",
    "grey images' weights with colour statistics": "for 3 channels, and .* for 1",
    "logits of weights without a head": "num_classes=K for a new, random head",
    "checkpoint= for a file": "checkpoint='best' is of a run",
    "other preprocessing than was saved": "'keras', but .* with 'imagenet'",
    "a saved file whose tensors were changed": "was changed after it was saved",
    "a saved file of a later version": "model.attention is unknown",
    "a saved file with 2 names for 1,000 classes": "2 class_names for 1000 classes",
    "a saved file with a deviation of 0": r"is damaged.*std=\[0, 0, 0\]",
    "a saved file whose random layers are a text": "'conv1_1' is no list of texts",
    "a saved file whose random layers are unknown": "random_layers='conv9_1' is unkn",
    "a saved file for images of -5 pixels": "size=-5 is out of range",
    "a saved file of version 9 with other fields": "is of version 9.0, and this is 0",
    "a saved file that declares gigabytes": r"features.1.weight, or not \(100000000,\)",
    "a pickle with code, as .pth": "not unpickled: save module.state_dict",
    "an archive with code, as .pth": "not unpickled: save module.state_dict",
    "a zip bomb, as .pth": "would unpack to 10,000,002 bytes",
    "a whole module, as .pth": "save module.state_dict",
    "a training checkpoint, as .pth": "save its 'state_dict' alone",
    "a terabyte of one number, as .pth": "declares 1,099,511,627,776 bytes",
    "a program of TorchScript, as .pth": "TorchScript .* module.state_dict",
    "weights in float8, as .pth": "is of type torch.float8_e4m3fn",
    "weights without values, as .pth": "on meta, and not plain|declares 16 bytes",
    ".pth without PyTorch": "pip install torch, or convert",
    ".h5 without h5py": r"pip install 'vgg_jax\[interop\]'",
    "a damaged .h5": "is damaged, or no file of Keras",
    "a link to another file, in .h5": "a link to elsewhere",
    "a compressed bomb, in .h5": "not plain numbers that the file holds",
    "a data set without its numbers, in .h5": "not plain numbers that the file holds",
    "a model inside of a model, in .h5": r"inside of a model \(conv2d\)",
    "the hub without its library": r"pip install 'vgg_jax\[interop\]'",
    "half a name on the hub": "write hf://owner/name/file",
    "a run without a checkpoint": "has no checkpoint: train it first",
    "a run whose checkpoints are torn": "checkpoints/4 is damaged",
    "checkpoint=newest of a run": "'newest' is unknown; choose one of: best, last",
    "a run without Orbax": r"needs orbax.* pip install 'vgg_jax\[train\]'",
    "saving over a file": "overwrite=True",
    "saving the variables alone": "is a dict, not a Network: vgg_jax.load",
    "saving a path to a network": "Path, not a Network",
    "saving NaN": "fc8/bias holds NaN or infinity in float32: nothing is saved",
    "saving in float16 what is above 65,504": "fc8/bias holds .* infinity in float16",
    "saving two names for 1,000 classes": "2 class_names for 1000 classes",
    "saving the weights of another model": r"fc8/kernel is .*, needs \[5, 7\]",
    "saving the weights of a deeper model": "not those of the model.*unused: conv2_1",
    "saving as something else": r"must end in \.safetensors",
    "saving in a convention that is not written": "one of: vgg_jax, torchvision, timm",
    "saving LRN for torchvision": "has no LRN",
    "saving average pooling for torchvision": "has no pool='average'",
    "saving a head for 32-pixel images for torchvision": "has no head='paper' with 512",
    "saving a compact head for timm": "has no head='compact'",
}
NEEDS = {  # by a word of the use: what is read by another library
    "a pickle with code": "torch",
    "an archive with code": "torch",
    "a whole module": "torch",
    "a training checkpoint": "torch",
    "a terabyte of one number": "torch",
    "weights in float8, as": "torch",
    "weights without values": "torch",
    "a damaged .h5": "h5py",
    "in .h5": "h5py",
}


def test_every_use_is_tested():
    assert WEIGHTS.keys() == SAYS.keys()


@pytest.mark.parametrize("what", WEIGHTS)
def test_one_line(what):
    for words, library in NEEDS.items():
        if words in what:
            pytest.importorskip(library)
    assert re.search(SAYS[what], told(WEIGHTS[what]))
