"""A folder of pictures becomes a data set; what is wrong with one is told."""

import warnings

import numpy as np
import PIL.Image
import pytest

from vgg_jax.cli import command
from vgg_jax.data import datasets, image_folder, stored
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
        (["cat/1.png", "big\ndog/1.png"], r"class 'big\\ndog' .*rename it"),
        (["cat/1.png", "dog\x1b[2J/1.png"], r"class 'dog\\x1b\[2J' .*rename it"),
        (["cat/1.png", "dog\udcff/1.png"], r"class 'dog\\udcff' .*rename it"),
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


def broken(root, count=1):
    """Two classes with three good pictures, and some of every kind of bad ones."""
    for path in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(root / path)
    whole = (root / "cat/1.png").read_bytes()
    (root / "dog/cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog/notes.txt").write_text("no picture")
    PIL.Image.fromarray(np.ones((4, 4), np.float32)).save(root / "dog/heat.tiff")
    for i in range(3, count):
        (root / f"cat/empty{i}.png").touch()


def test_all_bad_files_are_named_with_their_reasons(tmp_path):
    broken(tmp_path / "in")
    with pytest.raises(RunError) as error:
        image_folder.prepare(tmp_path / "in", "pets", tmp_path / "out")
    first, *lines, last = str(error.value).splitlines()
    assert first == "3 of 6 files are not readable pictures:"
    named = [line.split(":")[0].rpartition("/")[2] for line in lines]
    assert named == ["cut.png", "heat.tiff", "notes.txt"]
    assert "truncated" in lines[0] and "values are floats" in lines[1]
    assert "no format that Pillow reads" in lines[2] and "--skip_bad" in last
    assert not (tmp_path / "out").exists()


def test_of_many_bad_files_the_first_20_are_named(tmp_path):
    broken(tmp_path / "in", count=30)
    with pytest.raises(RunError, match=r"(?s)30 of 33 .*\n  and 10 more\n") as error:
        image_folder.prepare(tmp_path / "in", "pets", tmp_path / "out")
    assert len(str(error.value).splitlines()) == 23


def test_bad_files_are_left_out_if_asked(tmp_path, capsys):
    broken(tmp_path / "in")
    options = [f"--images={tmp_path / 'in'}", "--name=pets", f"--data_dir={tmp_path}"]
    command.main(["folder", *options, "--skip_bad"])
    printed = capsys.readouterr().out
    assert "left out: 3 of 6 files are not readable pictures:" in printed
    assert "cut.png" in printed and "train: 3 pictures, 40x30" in printed
    dataset = load("pets", tmp_path, test="train[2:]", train="train[:2]")
    assert len(dataset.train) + len(dataset.test) == 3
    (tmp_path / "in/dog/1.png").unlink()
    with pytest.raises(ConfigError, match="no file of class dog in train"):
        image_folder.prepare(tmp_path / "in", "more", tmp_path, skip_bad=True)


@pytest.mark.parametrize("label", ["two\nlines", " cat", "cat ", "tab\t", "\udcff"])
def test_a_class_is_one_line_of_text(label, tmp_path):
    """TFDS keeps the names as lines, which it strips."""
    for name in (label, "dog"):
        picture(tmp_path / "in" / name / "1.png")
    with pytest.raises(ConfigError, match="rename it") as error:
        image_folder.prepare(tmp_path / "in", "pets", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["n" * 300, "n" * 65, "1pets", "../pets", "pets/x", ""]
)
def test_a_name_is_short_and_plain(name, tmp_path):
    for label in "ab":
        picture(tmp_path / f"in/{label}/1.png")
    with pytest.raises(ConfigError, match="at most 64 lower-case letters") as error:
        image_folder.prepare(tmp_path / "in", name, tmp_path)
    assert len(str(error.value)) < 200
    image_folder.prepare(tmp_path / "in", "n" * 64, tmp_path)


def test_kinds_of_pictures_are_stored_as_they_look(tmp_path):
    """Animated: the first frame. Expected colours by hand; the order is of the ids."""
    red, size = (255, 0, 0), (8, 8)
    first, second = (PIL.Image.new("RGB", size, c) for c in (red, (0, 0, 255)))
    sixteen = PIL.Image.fromarray(np.full(size, 32_896, np.uint16))
    clear = PIL.Image.new("LA", size, (0, 0))
    files = {
        "animated.gif": (first, {"save_all": True, "append_images": [second]}),
        "animated.png": (first, {"save_all": True, "append_images": [second]}),
        "clear.png": (clear, {}),
        "ink.jpg": (PIL.Image.new("CMYK", size, (0, 255, 255, 0)), {"quality": 100}),
        "palette.png": (first.convert("P", palette=PIL.Image.Palette.ADAPTIVE), {}),
        "shown.png": (PIL.Image.new("RGB", size, red), {"transparency": red}),
        "sixteen.png": (sixteen, {}),
        "sixteen.tiff": (sixteen, {}),
        "\udcff.png": (first, {}),  # a name that is no text
    }
    for label in "ab":
        (tmp_path / "in" / label).mkdir(parents=True)
        for name, (saved, options) in files.items():
            saved.save(tmp_path / "in" / label / name, **options)
    image_folder.prepare(tmp_path / "in", "kinds", tmp_path)
    source = stored.find("kinds", data_dir=str(tmp_path)).as_data_source("train")
    got = {r["id"].decode(): r["image"][0, 0].tolist() for r in source}
    white, grey = [255] * 3, [128] * 3
    expected = [red, red, white, (254, 0, 0), red, white, grey, grey, red]
    for name, colour in zip(files, expected, strict=True):
        name = name.replace("\udcff", "\\udcff")
        np.testing.assert_allclose(got[f"train/a/{name}"], colour, atol=1)


def test_large_pictures(tmp_path, monkeypatch):
    """Pillow warns above a number of pixels, and refuses twice as many (its manual)."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10_000)
    picture(tmp_path / "in/a/1.png", size=(190, 100))
    picture(tmp_path / "in/b/1.png")
    with warnings.catch_warnings():
        image_folder.prepare(tmp_path / "in", "large", tmp_path)
    for stream in (False, True):
        parts = {"test": "train[:1]", "train": "train[1:]", "stream": stream}
        loaded = load("large", tmp_path, size=16, **parts)
        assert loaded.train.take(np.array([0]))[0].shape == (1, 16, 16, 3)
    picture(tmp_path / "in/a/2.png", size=(210, 100))
    with pytest.raises(RunError, match="a/2.png: Image size"):
        image_folder.prepare(tmp_path / "in", "larger", tmp_path)


def test_a_picture_of_one_pixel_is_enlarged(tmp_path):
    for label, side in (("a", 1), ("b", 30)):
        picture(tmp_path / f"in/{label}/1.png", size=(side, side), value=7)
    image_folder.prepare(tmp_path / "in", "tiny", tmp_path)
    loaded = load("tiny", tmp_path, size=16, test="train[:1]", train="train[1:]")
    assert (loaded.train.images == 7).all() and (loaded.test.images == 7).all()


def test_a_data_set_is_not_overwritten(tmp_path):
    for label in "ab":
        picture(tmp_path / f"in/{label}/1.png")
    image_folder.prepare(tmp_path / "in", "pets", tmp_path)
    for taken in ("pets", "cifar10"):
        with pytest.raises(ConfigError, match="taken"):
            image_folder.prepare(tmp_path / "in", taken, tmp_path)
    with pytest.raises(ConfigError, match="lower-case"):
        image_folder.prepare(tmp_path / "in", "My pets", tmp_path)
