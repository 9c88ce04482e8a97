"""CIFAR-10 and CIFAR-100 as TFDS data sets that are written without TensorFlow.

The stock TFDS builders need TensorFlow to encode images. These hand TFDS encoded
PNG files, and the result is what the stock class reads: same features, ids and order.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vgg_jax.data.cifar10_archives import Splits

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
_CITATION = """\
@TECHREPORT{Krizhevsky09learningmultiple,
    author = {Alex Krizhevsky},
    title = {Learning multiple layers of features from tiny images},
    institution = {},
    year = {2009}
}"""


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes arrays as `cifar10/3.0.2`, in array_record form.

    It is not registered, so that `tfds.builder("cifar10")` stays the stock class.

    Args:
        splits: the whole of CIFAR-10, in canonical order.
        **kwargs: arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    VERSION = tfds.core.Version("3.0.2")
    DESCRIPTION = (
        "The CIFAR-10 dataset consists of 60000 32x32 colour images in 10 classes, "
        "with 6000 images per class. There are 50000 training images and 10000 test "
        "images."
    )
    PNG = {"compress_level": 6}  # Pillow's options

    def __init__(self, splits: Splits, **kwargs: Any) -> None:
        self._splits = splits
        super().__init__(file_format="array_record", **kwargs)

    def select(self, split: str, labels: np.ndarray) -> np.ndarray:
        """Returns the indices of the images to write, int `[M]`, increasing.

        All of them here; a subclass may keep fewer.

        Args:
            split: "train" or "test".
            labels: uint8 `[N]`, of the whole split.
        """
        del split
        return np.arange(len(labels))

    def features(self) -> dict[str, Any]:
        """Returns the features of the stock class."""
        return {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        features = self.features()
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            citation=_CITATION,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = self._splits[split]
        for index in self.select(split, labels).tolist():
            png = io.BytesIO()
            Image.fromarray(images[index]).save(png, "png", **self.PNG)
            png.seek(0)
            name = f"{split}_{index:05d}"
            # TFDS shuffles by this key: the stock builder's, hence the same order.
            yield index, {"id": name, "image": png, **self.labels(labels[index])}

    def labels(self, row: np.ndarray) -> dict[str, Any]:
        """Returns the features that the labels of an example fill."""
        return {"label": row}


class Cifar100(Cifar10, skip_registration=True):
    """Writes arrays as `cifar100/3.0.2`; names of classes are those of the archive."""

    DESCRIPTION = (
        "This dataset is just like the CIFAR-10, except it has 100 classes containing "
        "600 images each, grouped into 20 superclasses."
    )

    def features(self) -> dict[str, Any]:
        """Returns the features of the stock class."""
        fine, coarse = map(list, self._splits.names)
        return {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=fine),
            "coarse_label": tfds.features.ClassLabel(names=coarse),
        }

    def labels(self, row: np.ndarray) -> dict[str, Any]:
        """Returns the features that the two labels of an example fill."""
        return {"label": row[0], "coarse_label": row[1]}


BUILDERS = {"cifar10": Cifar10, "cifar100": Cifar100}
