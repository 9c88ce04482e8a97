"""Names of layers, against those read off torchvision's, timm's and Keras' modules."""

import pytest

from vgg_jax.errors import ConfigError
from vgg_jax.interop.layer_names import resolve, table
from vgg_jax.nn.vgg import VGG

# torchvision 0.28, `dict(vgg16().named_modules())` and likewise (docs/facts.md). A
# convolution is one before its ReLU, or two with batch norm.
TORCHVISION = {
    ("D", False): {
        "relu1_1": 1, "relu1_2": 3, "pool1": 4, "relu2_1": 6, "relu2_2": 8, "pool2": 9,
        "relu3_1": 11, "relu3_2": 13, "relu3_3": 15, "pool3": 16, "relu4_1": 18,
        "relu4_2": 20, "relu4_3": 22, "pool4": 23, "relu5_1": 25, "relu5_2": 27,
        "relu5_3": 29, "pool5": 30, "conv3_3": 14, "conv5_1": 24,
    },
    ("D", True): {
        "relu1_2": 5, "relu2_2": 12, "relu3_3": 22, "relu4_3": 32, "relu5_3": 42,
        "pool5": 43, "bn1_2": 4, "conv1_2": 3,
    },
    ("E", False): {"relu3_4": 17, "relu4_4": 26, "relu5_4": 35, "pool5": 36},
}  # fmt: skip
OTHERS = {
    "classifier.0": "fc6", "classifier.1": "relu6", "classifier.3": "fc7",
    "classifier.4": "relu7", "classifier.6": "fc8", "avgpool": "adaptive_average",
    "pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "head.fc": "fc8",
    "block1_conv2": "relu1_2", "block5_conv3": "relu5_3", "block4_pool": "pool4",
    "fc1": "relu6", "fc2": "relu7", "predictions": "fc8", "relu4_3": "relu4_3",
}  # fmt: skip


@pytest.mark.parametrize("variant, batch_norm", TORCHVISION)
def test_features_are_numbered_as_torchvision_numbers_them(variant, batch_norm):
    model = VGG(variant, batch_norm=batch_norm)
    for name, number in TORCHVISION[variant, batch_norm].items():
        assert resolve(model, f"features.{number}") == name


@pytest.mark.parametrize("name", OTHERS)
def test_a_name_of_another_convention(name):
    assert resolve(VGG("D", head="adaptive"), name) == OTHERS[name]


def test_no_name_stands_for_two_layers():
    for row in zip(*table(VGG("E", batch_norm=True, head="adaptive")), strict=True):
        names = [str(name) for name in row if name]
        assert len(set(names)) == len(names)


def test_a_network_without_hidden_layers_has_one_classifier():
    model = VGG("A", head="compact")
    assert resolve(model, "classifier") == "fc8"
    with pytest.raises(ConfigError, match="'fc7' is unknown in configuration A"):
        resolve(model, "fc7")


def test_a_convention_that_lacks_the_layer():
    """Keras' VGGs have no batch norm, timm's no network with three hidden layers."""
    rows = {row.spec.name: row for row in table(VGG("D", batch_norm=True))}
    assert rows["bn3_1"].keras == "" and rows["conv3_1"].keras == ""
    rows = {row.spec.name: row for row in table(VGG("D", hidden=(8, 8, 8)))}
    assert rows["fc5"].torchvision == "classifier.0" and rows["fc5"].timm == ""
