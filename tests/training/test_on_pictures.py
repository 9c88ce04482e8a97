"""The paper's training, on a folder of pictures: `configs/imagenet.py`."""

import io

import numpy as np
import PIL.Image
import pytest
from rich.console import Console

from configs import imagenet
from tests.training.test_loop import crc, epochs, numbers, stop_after
from vgg_jax.data import datasets
from vgg_jax.errors import ConfigError
from vgg_jax.training import loop
from vgg_jax.training.config import resolve
from vgg_jax.training.interrupt import Stopped


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of thirty pictures; one of training, one of the test is damaged."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number, label in enumerate(("dark", "light")):
        (folder / label).mkdir()
        for i in range(30):
            high, wide = random.integers(20, 60, 2)
            pixels = random.integers(0, 128, (high, wide, 3)) + 128 * number
            picture = PIL.Image.fromarray(pixels.astype(np.uint8))
            picture.save(folder / label / f"{i:02}.png")
    (folder / "dark" / "07.png").write_bytes(b"no picture")
    file = folder / of_the_test(folder).removeprefix("train/")
    file.write_bytes(b"no picture")
    return folder


def of_the_test(folder):
    """The name of the first picture of the test split."""
    split, _, _ = datasets.whole_pictures(f"folder:{folder}", "train[90%:]")
    return split.name(0)


def config(photos, **fields):
    made = imagenet.get_config("folder,jitter")
    made.data.name = f"folder:{photos}"
    made.epochs = 3
    made.batch_size = 16
    made.lr = 0.003
    made.augment.resize = 16
    made.augment.scales = (20, 40)
    made.model.variant = "conv3-8 | conv3-8 |"
    made.model.hidden = (16,)
    made.model.dtype = "float32"
    made.update_from_flattened_dict(fields)
    return made


def test_a_run_on_a_folder_is_resumed_exactly(photos, tmp_path, monkeypatch):
    console = Console(record=True, width=500, file=io.StringIO())
    result = loop.train(config(photos), tmp_path / "whole", console)
    assert result["classes"] == ["dark", "light"] and result["test"]["count"] == 6
    assert (tmp_path / "whole" / "classes.txt").read_text() == "dark\nlight\n"
    assert len(result["data"]["components"]) == 3
    said = console.export_text()
    for name in ("train/dark/07.png", of_the_test(photos)):
        assert said.count(f"damaged picture {name}") == 1
    quiet = Console(quiet=True)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)  # in the second epoch of three steps
        with pytest.raises(Stopped):
            loop.train(config(photos), tmp_path / "stopped", quiet)
    loop.train(config(photos), tmp_path / "stopped", quiet)
    assert crc(tmp_path / "stopped") == crc(tmp_path / "whole")
    rows = [numbers(epochs(tmp_path / name)) for name in ("stopped", "whole")]
    assert rows[0] == rows[1] and rows[0][-1]["step"] == 9


def test_it_is_the_papers_training():
    """docs/facts.md, section 4: batch 256, 74 epochs, momentum, L2, dropout, drops."""
    resolved = resolve(imagenet.get_config())
    assert (resolved.batch_size, resolved.epochs, resolved.lr) == (256, 74, 0.01)
    assert (resolved.augment.resize, resolved.augment.scales) == (224, (256,))
    sgd = resolved.optimizer
    assert (sgd.momentum, sgd.weight_decay, sgd.decay) == (0.9, 5e-4, "l2")
    assert resolved.model.dropout == 0.5 and resolved.augment.flip == "random"
    assert resolved.schedule.monitor == "val_accuracy"
    plateau = resolved.schedule.plateau(resolved.lr)
    state, scales = plateau.init(), []
    for _ in range(20):
        state = plateau.update(state, 0.5)
        scales.append(round(float(state.scale), 6))
    assert sorted({*scales}) == [0.001, 0.01, 0.1, 1.0]  # three drops by 10
    jitter = resolve(imagenet.get_config("jitter"))
    assert jitter.augment.scales == (256, 512)
    larger = resolve(imagenet.get_config("384"))
    assert (larger.augment.scales, larger.lr) == ((384,), 0.001)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"augment.resize": 0}, "set augment.resize to what the network sees"),
        ({"augment.resize": 24}, "from 1 to 20"),
        ({"augment.crop": 4}, "are two random crops"),
        ({"augment.scales": (40, 20)}, "the least and the most"),
        ({"augment.scales": (1, 2, 3)}, "the least and the most"),
        ({"augment.colour": 2.0}, r"in \[0, 1\]"),
        ({"data.data_dir": "somewhere"}, "data.data_dir='somewhere' does nothing"),
        ({"data.name": "cifar10", "data.stream": False, "data.workers": 2}, "workers"),
    ],
)
def test_wrong_settings_name_the_remedy(photos, fields, said):
    with pytest.raises(ConfigError, match=said):
        resolve(config(photos, **fields))


@pytest.mark.slow
def test_crops_from_memory_and_from_disk_are_not_one_run(photos, tmp_path):
    """Their random numbers differ, so that `data.stream` may not change then."""
    sample = {
        "data.name": "cifar10_sample",
        "data.train": "train[:48]",
        "data.validation": "train[48:64]",
        "data.test": "test[:16]",
        "epochs": 1,
    }
    quiet = Console(quiet=True)
    loop.train(config(photos, **sample), tmp_path, quiet, test=False)
    with pytest.raises(ConfigError, match="data.stream: True -> False"):
        loop.train(config(photos, **sample, **{"data.stream": False}), tmp_path, quiet)
    workers = {"data.workers": 1, "epochs": 1}
    loop.train(config(photos, **sample | workers), tmp_path, quiet, test=False)
