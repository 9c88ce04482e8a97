"""Folders of pictures, read as they are, whatever is in them."""

import numpy as np
import PIL.Image
import pytest

from vgg_jax.data import batches, datasets
from vgg_jax.errors import ConfigError, RunError

HOW = {"train": "train[:75%]", "validation": "none", "test": "train[75%:]", "size": 16}


def smooth(width, height, level):
    """A picture without fine detail, which JPEG keeps to a few grey levels."""
    x, y = np.meshgrid(np.linspace(0, 60, width), np.linspace(0, 60, height))
    pixels = np.stack([level + x, level + y, 0 * x + level], -1)
    return PIL.Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def photos(tmp_path):
    """Three classes of eight pictures of various sizes."""
    for number, label in enumerate(("ant", "bee", "cat")):
        (tmp_path / label).mkdir()
        for i in range(8):
            picture = smooth(40 + 9 * i, 90 - 7 * i, 60 * number)
            picture.save(tmp_path / label / f"{i}.jpg", quality=95)
    return tmp_path


def load(photos, **more):
    return datasets.load(f"folder:{photos}", **HOW | more, report=lambda text: None)


def epoch(split, **how):
    known = {"seed": 0, "batch_size": 4, "epoch": 0, "start": 0, "remainder": "keep"}
    return list(batches.training(split, **known | how))


def same(got, want):
    for batch, other in zip(got, want, strict=True):
        for array, expected in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_each_picture_comes_once_per_epoch(photos):
    dataset = load(photos)
    assert dataset.classes == ("ant", "bee", "cat")
    assert (len(dataset.train), len(dataset.test)) == (18, 6)
    seen = np.concatenate([batch.index for batch in epoch(dataset.train)])
    assert sorted(seen) == list(range(18))
    images, labels = dataset.train.take(np.arange(18))
    assert images.shape == (18, 16, 16, 3) and set(labels) == {0, 1, 2}
    # The blue channel says the class: 0, 60 or 120.
    np.testing.assert_allclose(images[..., 2].mean((1, 2)), 60 * labels, atol=3)
    assert not dataset.damaged


def test_the_order_depends_on_names_alone(photos, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "photos"
    before = load(photos)
    digests, labels = before.digests, before.train.take(np.arange(18))[1]
    photos.rename(moved)
    after = load(moved)
    assert after.digests == digests
    np.testing.assert_array_equal(after.train.take(np.arange(18))[1], labels)


def test_a_picture_that_changed_shows_in_the_digest(photos):
    before = load(photos).digests
    smooth(50, 50, 200).save(photos / "ant" / "0.jpg")
    assert load(photos).digests != before


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_random_crops_are_the_same_when_resumed_and_by_processes(photos, workers):
    split = load(photos, scales=(20, 40)).train
    whole = epoch(split)
    other = load(photos, scales=(20, 40), workers=workers).train
    same(epoch(other, start=2), whole[2:])
    next_epoch = epoch(split, epoch=1)
    numbers = np.concatenate([batch.index for batch in whole])
    again = np.concatenate([batch.index for batch in next_epoch])
    images = np.concatenate([batch.images for batch in whole])[np.argsort(numbers)]
    others = np.concatenate([batch.images for batch in next_epoch])[np.argsort(again)]
    assert not any(map(np.array_equal, images, others))  # cut out elsewhere


def test_evaluation_sees_centres_of_the_middle_scale(photos):
    split = load(photos, scales=(20, 40)).train
    number = 3
    whole = PIL.Image.fromarray(split.picture(number)[0])
    sides = [max(30, round(side * 30 / min(whole.size))) for side in whole.size]
    pixels = np.asarray(whole.resize(sides, PIL.Image.Resampling.BILINEAR), int)
    top, left = ((side - 16) // 2 for side in pixels.shape[:2])
    got = split.take(np.array([number]))[0][0].astype(int)
    assert np.abs(got - pixels[top : top + 16, left : left + 16]).max() <= 1


KINDS = {
    "cmyk.jpg": lambda p: p.convert("CMYK"),
    "grey.png": lambda p: p.convert("L"),
    "palette.png": lambda p: p.convert("P"),
    "alpha.png": lambda p: p.convert("RGBA"),
    "sixteen.png": lambda p: PIL.Image.fromarray(
        np.asarray(p.convert("L")).astype(np.uint16) * 257
    ),
    "animated.gif": lambda p: p,
    "wide.jpg": lambda p: p.resize((20_000, 40)),
    "dot.png": lambda p: p.resize((1, 1)),
    "upper.JPG": lambda p: p,
}


def test_pictures_of_every_kind_are_read(photos):
    for name, change in KINDS.items():
        more = {"append_images": [smooth(50, 40, 9)]} if "gif" in name else {}
        change(smooth(50, 40, 60)).save(
            photos / "bee" / name, save_all=bool(more), **more
        )
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    smooth(64, 32, 60).save(photos / "bee" / "turned.jpg", exif=exif)
    dataset = load(photos)
    images, labels = dataset.train.take(np.arange(len(dataset.train)))
    assert len(dataset.train) + len(dataset.test) == 24 + len(KINDS) + 1
    assert not dataset.damaged
    bees = images[labels == 1].mean((1, 2, 3))
    assert (np.abs(bees - 80) < 20).all()  # none black or white
    turned = [dataset.train.picture(n)[0].shape for n in range(len(dataset.train))]
    shapes = turned + [
        dataset.test.picture(n)[0].shape for n in range(len(dataset.test))
    ]
    assert (64, 32, 3) in shapes and (32, 64, 3) not in shapes


def damage(photos):
    data = (photos / "ant" / "1.jpg").read_bytes()
    (photos / "ant" / "1.jpg").write_bytes(data[: len(data) // 2])
    (photos / "ant" / "2.jpg").write_bytes(b"no picture")
    (photos / "ant" / "3.jpg").write_bytes(b"")
    return {f"train/ant/{i}.jpg" for i in (1, 2, 3)}


def test_damaged_pictures_are_named_and_stop_nothing(photos):
    names = damage(photos)
    everything = {"train": "train", "test": "train[:1]"}
    with pytest.raises(ConfigError, match="share 1 images"):
        load(photos, **everything)
    dataset = load(photos, scales=(20, 40))
    trained = epoch(dataset.train)
    assert sum(len(batch.labels) for batch in trained) == 18
    # Others came in their place: none is black, and labels are of what is shown.
    images = np.concatenate([batch.images for batch in trained])
    labels = np.concatenate([batch.labels for batch in trained])
    np.testing.assert_allclose(images[..., 2].mean((1, 2)), 60 * labels, atol=3)
    assert images.any((1, 2, 3)).all()
    # In evaluation they count: black, with their own label.
    seen = [*batches.evaluation(dataset.train, batch_size=18)]
    seen += batches.evaluation(dataset.test, batch_size=6)
    black = [image for batch in seen for image in batch.images if not image.any()]
    assert len(black) == 3 and set(dataset.damaged) == names
    assert "truncated" in dataset.damaged["train/ant/1.jpg"].lower()


def test_a_folder_of_damaged_pictures_ends_the_run(photos):
    for file in photos.rglob("*.jpg"):
        file.write_bytes(b"no picture")
    with pytest.raises(RunError, match="in a row cannot be decoded, such as train/"):
        epoch(load(photos).train)


def test_what_is_no_picture_by_its_name_is_told(photos):
    (photos / "ant" / "notes.txt").write_text("ants")
    told = []
    dataset = datasets.load(f"folder:{photos}", **HOW, report=told.append)
    assert len(dataset.train) + len(dataset.test) == 24
    assert "ant/notes.txt" in told[0]


@pytest.mark.parametrize(
    "more, said",
    [
        ({"size": 0}, "set augment.resize"),
        ({"test": "test"}, "not a split of folder:.*it has: train"),
    ],
)
def test_wrong_settings_name_the_remedy(photos, more, said):
    with pytest.raises(ConfigError, match=said):
        load(photos, **more)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data.name=.*nowhere is not a directory"):
        load(tmp_path / "nowhere")


def test_no_folder_at_all_is_told():
    with pytest.raises(ConfigError, match="names no folder: folder:photos, say"):
        datasets.load("folder:", **HOW)


def test_an_empty_class_is_named(photos):
    (photos / "dog").mkdir()
    (photos / "dog" / "notes.txt").write_text("dogs")
    with pytest.raises(ConfigError, match="no file of class 'dog'"):
        load(photos)


def test_a_split_without_classes_is_named(photos, tmp_path_factory):
    """As Kaggle's test pictures come: without labels."""
    root = tmp_path_factory.mktemp("kaggle")
    photos.rename(root / "train")
    (root / "test").mkdir()
    smooth(40, 40, 0).save(root / "test" / "1.jpg")
    with pytest.raises(ConfigError, match="test has no class folders"):
        load(root)


def test_a_link_that_leads_nowhere_is_a_damaged_picture(photos):
    (photos / "ant" / "lost.jpg").symlink_to(photos / "nowhere.jpg")
    dataset = load(photos)
    for split in (dataset.train, dataset.test):
        split.take(np.arange(len(split)))
    assert [*dataset.damaged] == ["train/ant/lost.jpg"]


def test_a_large_jpeg_is_decoded_at_a_fraction(photos, monkeypatch):
    """The same crop, to a few grey levels, of an eighth of the pixels or fewer."""
    smooth(1600, 1200, 60).save(photos / "bee" / "large.jpg", quality=95)
    sizes = []
    resize = PIL.Image.Image.resize

    def noted(picture, *args, **more):
        sizes.append(picture.size)
        return resize(picture, *args, **more)

    (photos / "train").mkdir()
    for label in ("ant", "bee", "cat"):
        (photos / label).rename(photos / "train" / label)
    (photos / "other" / "ant").mkdir(parents=True)
    smooth(20, 20, 0).save(photos / "other" / "ant" / "0.png")
    every = {"train": "train", "test": "other"}
    split = load(photos, scales=(20, 40), **every).train.in_epoch(0, 0)
    index = np.arange(len(split))
    monkeypatch.setattr(PIL.Image.Image, "draft", lambda *a: None)
    whole, _ = split.take(index)
    monkeypatch.undo()
    monkeypatch.setattr(PIL.Image.Image, "resize", noted)
    drafted, _ = split.take(index)
    assert np.abs(whole.astype(int) - drafted).max() <= 6
    assert (1600, 1200) not in sizes
    assert {(200, 150), (400, 300)} & {*sizes}
