"""A folder of pictures becomes a data set; what is wrong with one is told."""

import numpy as np
import PIL.Image
import pytest

from vgg_jax.cli import command
from vgg_jax.data import datasets, image_folder
from vgg_jax.errors import ConfigError, RunError


def picture(path, size=(40, 30), value=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), value, np.uint8)
    PIL.Image.fromarray(pixels).save(path, **options)


def load(name, root, **options):
    return datasets.load(name, data_dir=str(root), validation="none", **options)


def test_pixels_and_labels_survive(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for label, value in (("cat", 10), ("dog", 200)):
            for i in range(count):
                picture(tmp_path / f"in/{split}/{label}/{i}.png", value=value + i)
    options = [f"--images={tmp_path / 'in'}", "--name=pets", f"--data_dir={tmp_path}"]
    command.main(["folder", *options])
    dataset = load("pets", tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.images.shape == (6, 30, 40, 3) and len(dataset.test) == 2
    for image, label in zip(*dataset.train, strict=True):
        assert image.min() == image.max() and image[0, 0, 0] in (
            (10, 11, 12),
            (200, 201, 202),
        )[label]  # fmt: skip


def test_various_sizes_modes_and_orientations(tmp_path):
    """One folder of all: a wide picture marked as turned by EXIF is stored tall."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    picture(tmp_path / "in/a/turned.jpg", size=(60, 30), exif=exif)
    picture(tmp_path / "in/a/small.gif", size=(8, 8))
    picture(tmp_path / "in/b/large.webp", size=(50, 90))
    PIL.Image.new("RGBA", (20, 20)).save(tmp_path / "in/b/alpha.png")
    PIL.Image.new("L", (20, 20)).save(tmp_path / "in/b/grey.png")
    (tmp_path / "in/b/.DS_Store").write_text("hidden")
    image_folder.prepare(tmp_path / "in", "mixed", tmp_path)
    with PIL.Image.open(image_folder._encoded(tmp_path / "in/a/turned.jpg")) as upright:
        assert upright.size == (30, 60)
    with pytest.raises(ConfigError, match="augment.resize"):
        load("mixed", tmp_path, train="train[:3]", test="train[3:]")
    dataset = load("mixed", tmp_path, train="train[:3]", test="train[3:]", size=32)
    assert dataset.train.images.shape == (3, 32, 32, 3) and len(dataset.test) == 2


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "not a directory"),
        (["cat/1.png"], "two or more"),
        (["training/cat/1.png", "testing/cat/1.png"], "one split 'train'"),
        (["train/cat/1.png", "train/dog/1.png", "test/cow/1.png"], "cow"),
    ],
)
def test_a_wrong_layout_is_told(tmp_path, files, told):
    for file in files:
        picture(tmp_path / "in" / file)
    with pytest.raises(ConfigError, match=told):
        image_folder.prepare(tmp_path / "in", "pets", tmp_path)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    for label in "ab":
        picture(tmp_path / f"in/{label}/1.png")

    def full(made, target):
        (made.data_dir_root / "part").write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(image_folder, "write", full)
    with pytest.raises(RunError, match="no space left"):
        image_folder.prepare(tmp_path / "in", "pets", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_picture_is_named(tmp_path):
    picture(tmp_path / "in/cat/1.png")
    picture(tmp_path / "in/dog/1.png")
    whole = (tmp_path / "in/dog/1.png").read_bytes()
    (tmp_path / "in/dog/1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="dog/1.png"):
        image_folder.prepare(tmp_path / "in", "pets", tmp_path / "out")


def test_a_data_set_is_not_overwritten(tmp_path):
    for label in "ab":
        picture(tmp_path / f"in/{label}/1.png")
    image_folder.prepare(tmp_path / "in", "pets", tmp_path)
    for taken in ("pets", "cifar10"):
        with pytest.raises(ConfigError, match="taken"):
            image_folder.prepare(tmp_path / "in", taken, tmp_path)
    with pytest.raises(ConfigError, match="lower-case"):
        image_folder.prepare(tmp_path / "in", "My pets", tmp_path)
