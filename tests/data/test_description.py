"""What a run was trained on, against ids that TFDS itself reads."""

import hashlib
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.data.test_datasets import SAMPLE, Grey
from vgg_jax.data import datasets
from vgg_jax.data.description import description


def described(name="cifar10_sample", statistics=None, **fields):
    return description(datasets.load(name, **fields), statistics)


def test_ids_counts_and_classes():
    splits = {"train": "train[:100]+test[:7]", "validation": "none", "test": "test[7:]"}
    got = described(statistics=((0.1,), (0.2,)), **splits)
    builder = tfds.builder_from_directory(SAMPLE / "1.0.0")
    for role in ("train", "test"):
        source = builder.as_data_source(splits[role])
        ids = b"".join(source[i]["id"] + b"\0" for i in range(len(source)))
        expected = {"count": len(source), "sha256": hashlib.sha256(ids).hexdigest()}
        assert got[role] == expected
    assert got["validation"] is None and got["classes"][9] == "truck"
    assert got["statistics"] == {"mean": [0.1], "std": [0.2]}
    assert json.loads(json.dumps(got)) == got


@pytest.mark.parametrize("validation", ["sklearn_80_20", "train[90%:]"])
def test_streamed_is_the_same(validation):
    fields = {"validation": validation}
    if validation != "sklearn_80_20":
        fields["train"] = "train[:90%]"
    assert described(**fields) == described(**fields, stream=True)
    changed = fields | {"test": "test[:999]"}
    assert described(**changed)["test"] != described(**fields)["test"]


class More(Grey, skip_registration=True):
    name = "grey"
    SIZES = [(28, 28)] * 6


def test_a_set_without_ids(tmp_path):
    """The same slice of a set that has grown is not the same."""
    found = []
    for kind in (Grey, More):
        root = tmp_path / kind.__name__
        kind(data_dir=root, file_format="array_record").download_and_prepare()
        splits = {"train": "train[:3]", "validation": "train[3:5]"}
        fields = splits | {"data_dir": str(root)}
        found.append(described("grey", **fields))
        assert described("grey", **fields, stream=True) == found[-1]
    few, more = found
    assert few["train"]["count"] == more["train"]["count"] == 3
    assert few["train"]["sha256"] != more["train"]["sha256"]
    assert few["train"]["sha256"] != few["validation"]["sha256"]
    assert np.all([len(s["test"]["sha256"]) == 64 for s in found])
